/** What the page says below each benchmark: where the time goes, and why an aim isn't reached. */
import type { Notes } from "./Document.ts"

export const notes: Notes = {}
