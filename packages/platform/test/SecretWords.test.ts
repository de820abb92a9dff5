/** A homeserver's words are repeated only when no secret is in them, however they spell it. */
import { assert, describe, it } from "@effect/vitest"
import * as SecretWords from "../src/http/SecretWords.ts"

const password = String.raw`pä"ss'wörd\ 100% <geheim>/+=&?`
const token = "syt_Ym9i_kJhdGzQwErTyUiOpAsD_1a2B3c"

const json = (text: string): string => JSON.stringify(text).slice(1, -1)
const html = (text: string): string =>
  text.replace(/[&<>"']/g, (sign) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[sign]!)

/** How proxies, logs and frameworks write down what they were told. */
const ways: { readonly [way: string]: (secret: string) => string } = {
  "as JSON": json,
  "as JSON in JSON": (secret) => json(json(secret)),
  "as JSON in JSON in JSON": (secret) => json(json(json(secret))),
  "as ASCII JSON": (secret) =>
    json(secret).replace(/[^\0-\x7f]/g, (letter) => `\\u00${letter.charCodeAt(0).toString(16)}`),
  "percent-encoded": encodeURIComponent,
  "percent-encoded twice": (secret) => encodeURIComponent(encodeURIComponent(secret)),
  "as a field of a form": (secret) => new URLSearchParams({ field: secret }).toString(),
  "in a page": html,
  "in a page in a page": (secret) => html(html(secret)),
  "in upper case": (secret) => secret.toUpperCase(),
  "with blanks at line ends": (secret) => secret.replace(/(.{7})/g, "$1\n   "),
  "in hex": (secret) => Buffer.from(secret).toString("hex"),
  "in base64": (secret) => Buffer.from(secret).toString("base64"),
  "in url-safe base64": (secret) => Buffer.from(secret).toString("base64url"),
  "as basic authentication": (secret) => Buffer.from(`alice:${secret}`).toString("base64"),
  "in base64 of something longer": (secret) => Buffer.from(`{"password":"${secret}"}`).toString("base64")
}

describe("SecretWords", () => {
  for (const [way, spell] of Object.entries(ways)) {
    it(`find a secret that is spelled ${way}`, () => {
      for (const secret of [password, token]) {
        const said = `You said: ${spell(secret)}. That is wrong.`
        assert.isTrue(SecretWords.holds(said, secret), said)
        const left = SecretWords.without(said, [secret]) ?? ""
        assert.isFalse(SecretWords.holds(left, secret), left)
      }
    })
  }

  it("take a secret out that is there as it is, and leave the words around it", () => {
    assert.strictEqual(
      SecretWords.without(`no user ${token}, said ${password}`, [token, password]),
      "no user <redacted>, said <redacted>"
    )
  })

  it("leave words without a secret as they are", () => {
    const said = "Invalid username or password: 100% sure, see https://example.org/?a=%C3%A4&lt;b&gt; \\u00e4"
    assert.strictEqual(SecretWords.without(said, [token, password, ""].slice(0, 2)), said)
    assert.isFalse(SecretWords.holds(said, ""))
  })

  it("leave nothing of words when a secret is too short to be told from others", () => {
    assert.isUndefined(SecretWords.without("a cat sat", ["cat"]))
  })

  it("I10: take no longer for a long text", () => {
    assert.isUndefined(SecretWords.without("%41".repeat(5_000_000), [token]))
    for (const evil of ["%", "&#", "\\u", "%E0", "&#x1"]) SecretWords.holds(evil.repeat(20_000), token)
  })
})
