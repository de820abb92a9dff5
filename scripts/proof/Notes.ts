/** What each part of the proof found: bugs that are fixed, below its figures on the page. */
import type { Notes } from "./Document.ts"

export const notes: Notes = {}
