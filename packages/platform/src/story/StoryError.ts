/** The story could not be played to its end: `message` says which part did not come, and what the processes said. */
import { Schema } from "effect"

export class StoryError extends Schema.TaggedError<StoryError>("@twinloop/platform/StoryError")("StoryError", {
  message: Schema.String
}) {}
