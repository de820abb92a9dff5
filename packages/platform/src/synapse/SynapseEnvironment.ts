/**
 * A virtual environment with Synapse in it, in the user's cache directory, made on first use.
 *
 * The work is done by `environment.py`, a child process, since only Python can take a lock that the kernel frees when its
 * holder is killed. Two processes that want the environment at once wait for each other; an interrupted one is made afresh.
 *
 * Gotchas: the first use downloads some 60 MB and takes about half a minute; the environment takes 240 MB.
 *
 * Not here: starting the server (`Synapse.ts`).
 */
import { Effect, Path, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { homedir } from "node:os"
import { fileURLToPath } from "node:url"
import { InstallFailed, PythonMissing, SynapseError } from "./SynapseError.ts"

/** The newest version that this project's tests were run against. */
export const defaultVersion = "1.163.2"

/** What is being done, for a human: `detail` changes often and can be shown in place. */
export interface SynapseProgress {
  /** `waiting`: another process is installing. `creating`, `installing`: the environment, once. `starting`: the server. */
  readonly step: "waiting" | "creating" | "installing" | "starting" | "ready"
  readonly detail: string
}

export interface EnvironmentOptions {
  /** Version of `matrix-synapse` on PyPI. */
  readonly version?: string
  /** Where environments are kept. Default: `$XDG_CACHE_HOME/twinloop`, else `~/.cache/twinloop`. */
  readonly cacheDirectory?: string
  /** Commands to try for Python, in order. Default: `python3`, `python`. */
  readonly pythons?: ReadonlyArray<string>
  readonly onProgress?: (progress: SynapseProgress) => Effect.Effect<void>
}

const script = fileURLToPath(new URL("environment.py", import.meta.url))

const failed = (reason: PythonMissing | InstallFailed): SynapseError => new SynapseError({ reason })

const installPython =
  "install Python 3.10 or newer with venv and pip (Debian: apt install python3-venv), then try again"

/** What an exit code of `environment.py` means. */
const errorOf = (code: number, output: string, version: string, directory: string): SynapseError => {
  switch (code) {
    case 10:
      return failed(
        new PythonMissing({ message: `Synapse needs Python 3.10, and this is ${output}: ${installPython}` })
      )
    case 11:
      return failed(new InstallFailed({ message: `Python could not make an environment: ${installPython}`, output }))
    case 12: {
      const message = `pip could not install matrix-synapse ${version}: check that PyPI can be reached, then try again`
      return failed(new InstallFailed({ message, output }))
    }
    case 13: {
      const message = `${directory} cannot be used: make it writable, or set XDG_CACHE_HOME to another directory`
      return failed(new InstallFailed({ message, output }))
    }
    default: {
      const message = `the installation of Synapse ended with code ${code}: remove ${directory}, then try again`
      return failed(new InstallFailed({ message, output }))
    }
  }
}

/** The first command of the list that starts a Python 3. */
const findPython = Effect.fn("SynapseEnvironment.findPython")(function* (pythons: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  for (const python of pythons) {
    const probe = ChildProcess.make(python, ["-c", "import sys; print(sys.version_info[0])"], { stdin: "ignore" })
    const major = yield* spawner.string(probe).pipe(Effect.orElseSucceed(() => ""))
    if (major.trim() === "3") return python
  }
  return yield* failed(
    new PythonMissing({ message: `none of ${pythons.join(", ")} starts a Python 3: ${installPython}` })
  )
})

const isStep = (step: string | undefined): step is SynapseProgress["step"] =>
  step === "waiting" || step === "creating" || step === "installing"

/** Runs `environment.py` to its end; gives its exit code and what it said on standard error. */
const runScript = (python: string, directory: string, version: string, options: EnvironmentOptions) =>
  Effect.gen(function* () {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const child = yield* spawner.spawn(ChildProcess.make(python, [script, directory, version], { stdin: "ignore" }))
    const report = child.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => {
        const [step, detail = ""] = line.split("\t")
        return isStep(step) && options.onProgress !== undefined ? options.onProgress({ step, detail }) : Effect.void
      })
    )
    const complaint = child.stderr.pipe(Stream.decodeText(), Stream.mkString)
    const [, output, code] = yield* Effect.all([report, complaint, child.exitCode], { concurrency: "unbounded" })
    return { code: Number(code), output: output.trim() }
  }).pipe(Effect.scoped)

/**
 * Gives the path of a Python interpreter that can run Synapse, and installs it first where needed.
 *
 * Fails with `PythonMissing` or `InstallFailed`.
 */
export const ensure = Effect.fn("SynapseEnvironment.ensure")(function* (options: EnvironmentOptions) {
  const path = yield* Path.Path
  const version = options.version ?? defaultVersion
  const cache = process.env.XDG_CACHE_HOME ?? ""
  const base = path.isAbsolute(cache) ? cache : path.join(homedir(), ".cache")
  const directory = path.join(options.cacheDirectory ?? path.join(base, "twinloop"), `synapse-${version}`)
  const python = yield* findPython(options.pythons ?? ["python3", "python"])
  const { code, output } = yield* runScript(python, directory, version, options).pipe(
    Effect.mapError((error) => errorOf(-1, error.message, version, directory))
  )
  if (code !== 0) return yield* errorOf(code, output, version, directory)
  return path.join(directory, "venv", "bin", "python")
})
