/** A parent process at the other end of standard input: what it says, and that it has gone. */
import { Effect, Stdio, Stream } from "effect"

/** Handles the parent's lines; ends when standard input does, which is when the parent closes it or dies. */
export const lines = <R>(
  handle: (line: string) => Effect.Effect<void, never, R>
): Effect.Effect<void, never, R | Stdio.Stdio> =>
  Effect.flatMap(Stdio.Stdio, (stdio) =>
    stdio.stdin.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach(handle),
      // A parent that is gone may leave a broken pipe: that is its end too.
      Effect.ignore,
      // An open standard input would keep the process alive after everything else has ended.
      Effect.ensuring(Effect.sync(() => process.stdin.destroy()))
    )
  )
