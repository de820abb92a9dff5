/**
 * Tries, as another user, to read the files and to connect to the sockets that are given, and prints what worked as JSON.
 *
 * Usage: node OtherUser.ts UID PATH...
 */
import { accessSync, constants, readFileSync, readdirSync, statSync } from "node:fs"
import { createConnection } from "node:net"

const [uid = "", ...paths] = process.argv.slice(2)
process.setgroups?.([])
process.setgid?.(Number(uid))
process.setuid?.(Number(uid))

const works = (action: () => unknown): boolean => {
  try {
    action()
    return true
  } catch {
    return false
  }
}

const connects = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(path, () => resolve(true)).on("error", () => resolve(false))
    socket.once("connect", () => socket.destroy())
  })

const worked: Array<string> = []
for (const path of paths) {
  if (works(() => readFileSync(path)) || works(() => readdirSync(path))) worked.push(`read ${path}`)
  if (works(() => accessSync(path, constants.W_OK))) worked.push(`write ${path}`)
  if (await connects(path)) worked.push(`connect ${path}`)
}
process.stdout.write(JSON.stringify({ uid: process.getuid?.(), worked, cwd: works(() => statSync(".")) }))
