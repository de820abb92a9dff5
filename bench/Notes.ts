/**
 * What the page says below each benchmark: where the time goes, and why an aim isn't reached.
 *
 * From profiles (`node --cpu-prof`) and counts; change it when the figures say something else.
 */
import type { Notes } from "./Document.ts"

const ingest =
  "Where the time goes, of one page of 100 rooms with one event each (9 ms): 4.5 ms rows and COMMIT (a state event has two entries, one in its table and one in an index that finds it), 1.1 ms `JSON.parse`, 1.0 ms what the page means for each room, 1.0 ms the HTTP client, 0.7 ms checking each event, 0.5 ms the room list with its live view; the rest is waiting for the homeserver. The limit has only the first two, without an index and without a summary per room. "

const cold =
  "With 1,000 rooms, 35 ms of the time are the start of the service (the lease, `/versions`, the first connection), and all code runs for the first time: the same pages take half of it in a process that is warm."

export const notes: Notes = {
  "ingest-1k-1": ingest + cold,
  "ingest-1k-20": ingest + cold,
  "ingest-10k-1":
    ingest +
    "Tried: pages of 8 and 16 KB in SQLite (slower for news), tables in the order of rooms (a third more disk, slower), state packed per room (would save about a tenth, and make every change of state rewrite the room's), asking for the next page before this one is committed (would hide the waiting, and give up that a killed process goes on from its position).",
  "ingest-10k-20":
    "Without a flag, V8 lets the space for short-lived objects grow to 134 MB under this load; of the rest, about 75 MB are the process itself, 60 MB the rooms and the page at hand. Decoding bodies as they come saved 40 MB, and a turn of the event loop between reading a page and committing it brought the longest stall from 44 to below 30 ms. The log of SQLite is copied into the database by a thread; who writes waits only when it is 64 MB long.",
  incremental:
    "Where the time of a response goes (1.4 ms, on a machine that does nothing else): 0.36 ms waiting for the homeserver, which the limit does as well; 0.5 ms the commit, of which 0.2 ms are SQLite's COMMIT and 0.2 ms statements; 0.25 ms the HTTP client; 0.1 ms `JSON.parse`, of which half are the ids that the homeserver repeats; 0.1 ms what the response means; 0.08 ms the room list; the rest fibers. At the start of this work it was 3.8 ms. Two and a half times matrix-js-sdk's pace would be nine tenths of the limit's. Its latency is that of its first event, before anything is stored: Twinloop's half millisecond of commit alone is longer. Tried: sending the next request before the commit, which would hide the waiting, and lose the position of a process that is killed in between; it would have to load every room again.",
  "to-device":
    "Where the time of a batch goes (3.1 ms): 0.8 ms the commit, synced to disk; 0.5 ms the consumer's cursor and the deletion of what every consumer has read; 0.5 ms waiting for the homeserver, 0.4 ms HTTP, 0.3 ms writing rows, 0.2 ms `JSON.parse`, 0.2 ms collecting garbage. At the start of this work it was 20 ms: the consumer read again what had just been written, and moved its cursor for each message.",
  "growth-rooms":
    "A room costs less in a larger account. A response costs more, because Synapse repeats the ids of every room of the list in each (`ops`, 47 bytes each: 0.47 MB for 10,000 rooms, 2.4 MB for 50,000), and the canned homeserver does the same. Receiving and parsing them is most of the growth: without them, a response in 10,000 rooms costs about a third more than in 1,000, in larger indexes and a longer list. The merged MSC4186 has no `ops`.",
  "cold-start":
    "Where the time goes (57 ms): 19 ms Node itself, 4 ms reading the file and its compile cache, 13 ms evaluating modules (Effect's core and Schema), 11 ms opening SQLite, sockets and the login, 3 ms the lease, 10 ms the request, 2 ms the commit; then 7 ms closing. The floor, `node:http` and `node:sqlite` and nothing else, is 34 ms to the end: 1.5 times `node -e 0`. Of the memory, 44 MB are Node and 5 MB http and SQLite; 8 MB are JavaScript's heap.",
  restart:
    "The first request needs only the position, and is sent before the rooms are read; they are read while it is on its way. What is left is the start of the process as above.",
  "lock-handover":
    "The ratio depends on how long the locks are held: the peer's wait doubles with every try. A hand-over is two wake-ups of idle processes (0.08 ms each at best), a write, and a read in code that has cooled down.",
  "lock-idle":
    "The waiter looks once a second in case a signal is lost, and each look runs cold: 1 ms of processor time. `waitPollMillis` 2,000 brings both to 0.115 %; the inbox of other processes is then looked at half as often, too.",
  "accounts-memory":
    "Of the actors' heap, by a comparison of two heap snapshots: 43 KB closures and what they capture, 19 KB plain objects, 20 KB arrays, maps and sets, 9 KB Effect's primitives, 5 KB strings. By owner (these overlap): 11 fibers 33 KB, scopes 22 KB, the memoised Layers 18 KB, the room list 12 KB. It is many small objects that live, with no single culprit; telling the actors' states without a stream each, and one Layer per account, might bring it to 75–90 KB. SQLite adds natively: 66 KB when a connection opens, 86 KB page cache at its first read, 32 KB shared memory, 4.5 KB for each of 23 statements; the limit has most of that. Tried: giving page cache and statements back after each transaction (536 to 388 KB for all of an account, at an unknown price where it is fast), or only after a pause (453 KB, and twice the processor time).",
  "crypto-to-device":
    "The limit isn't to be had with a store that lasts. Of the time that Twinloop takes beyond it, about two fifths are WebAssembly and the calls in and out of it: the machine makes JSON of each session and key, encrypts it, and reads back and decrypts what it has just written, none of which it does in memory. A fifth is SQLite (seven reads and five rows a key, and the commit), a tenth turning values into bytes, a tenth fake-indexeddb's requests and transactions, the rest garbage and Effect. With fake-indexeddb alone in memory, without SQLite, it is 0.9 to 1.1 ms a message where the limit has 0.5 to 0.7.",
  "crypto-megolm":
    "Of the time of an event, over half is WebAssembly, twice what it is in memory: the key is decrypted, read from JSON and made a session again for each event, and so are the sender's devices; the machine has no memory for what its store has given it. A tenth is the glue between WebAssembly and JavaScript, a tenth SQLite (four reads), a twelfth IndexedDB, a twentieth Effect. If all of JavaScript and SQLite took no time, it would be half of the limit's pace, so the aim is out of reach while the store is IndexedDB; where it counts, a screen of 50 events takes 30 ms. Dropping clones of what was read, and errors that were made in case they were needed, gave a tenth. Tried: a store without the machine's own cipher (`StoreHandle.open`), which is a tenth faster before anything else encrypts the rows; then the ids of rooms, users and sessions stand in the file in clear, so it isn't worth it. Keeping rows in memory as long as nobody has written (`PRAGMA data_version`) would save half of SQLite's tenth.",
  "crypto-store":
    "Nothing is read before it is asked for, so the number of keys is of no account. The first event costs the second machine, in a WebAssembly instance of its own, whose functions V8 compiles when they are first called. A key of 3.1 KB is 1.8 KB encrypted key, 0.4 KB entries in three indexes of the machine's, 0.1 KB so that no message is taken twice, and pages that are never full, since ids come in the order of chance.",
  "crypto-handover":
    "Of a hand-over with one message, an eighth is the lock, a quarter the new machine, and most of the rest what a machine does once after it was made: it reads its account and sessions and makes them out of JSON, in code that has cooled down. Each further message adds its 1 to 2 ms, so ten of them are beyond the aim by themselves. The longest are the first turns of each process, in which V8 compiles. Taking the stream again without another process in between makes no machine.",
  "crypto-cold-start":
    "Beyond the process without encryption, on a machine that does nothing else: 5 ms reading the WebAssembly (8 MB), 13 ms compiling it on V8's own threads, meanwhile 8 ms for its glue (0.4 MB of JavaScript) and 6 ms for fake-indexeddb, 3 ms making an instance, and the rest opening the store and decrypting, in functions that V8 compiles when they are first called. The compiling can't be kept: the compile cache is for JavaScript alone, and `v8.serialize` makes an empty object of a `WebAssembly.Module`; `compileStreaming` takes twice as long. `--wasm-lazy-validation` halves it (`docs/guides/bundling.md`).",
  "crypto-memory":
    "Of an account with both machines, about 1 MB each is V8's part of an instance (its table of functions, its imports and exports), and 0.8 MB the WebAssembly's memory. The glue is compiled once for all, which saved an eighth of the heap. One instance for all accounts would take a tenth of a megabyte for each, and a trap in one account would end the machines of all (I9)."
}
