import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { displayName, emptyRoomName, type NameInputs } from "../src/rooms/DisplayName.ts"

const me = "@me:hs"
const [alice, bob, carol, dan] = ["Alice", "Bob", "Carol", "Dan"].map((name) => ({
  userId: `@${name.toLowerCase()}:hs`,
  displayName: name
})) as [Hero, Hero, Hero, Hero]

interface Hero {
  readonly userId: string
  readonly displayName: string
}

/** Name of a joined room whose heroes are all its other members, unless something else is said. */
const nameOf = (inputs: Partial<NameInputs>): string => {
  const heroes = inputs.heroes ?? []
  return displayName({ membership: "join", heroes, joinedCount: heroes.length + 1, invitedCount: 0, ...inputs }, me)
}

describe("DisplayName", () => {
  it("is the room's name, else its canonical alias, else its heroes", () => {
    assert.strictEqual(nameOf({ name: "Team", canonicalAlias: "#team:hs", heroes: [alice] }), "Team")
    assert.strictEqual(nameOf({ canonicalAlias: "#team:hs", heroes: [alice] }), "#team:hs")
    assert.strictEqual(nameOf({ name: " ", canonicalAlias: "", heroes: [alice] }), "Alice")
  })

  it("lists the heroes when they are all the others", () => {
    assert.strictEqual(nameOf({ heroes: [alice, bob] }), "Alice and Bob")
    assert.strictEqual(nameOf({ heroes: [alice, bob, carol] }), "Alice, Bob and Carol")
  })

  it("counts the others when there are more, invited ones too", () => {
    assert.strictEqual(nameOf({ heroes: [alice, bob], joinedCount: 4 }), "Alice, Bob and 1 other")
    assert.strictEqual(
      nameOf({ heroes: [alice, bob], joinedCount: 4, invitedCount: 1235 }),
      "Alice, Bob and 1236 others"
    )
    assert.strictEqual(nameOf({ heroes: [], joinedCount: 3 }), "2 people")
  })

  it("says who was in a room that everybody left", () => {
    assert.strictEqual(nameOf({ heroes: [alice, bob], joinedCount: 1 }), "Empty Room (was Alice and Bob)")
    assert.strictEqual(nameOf({ heroes: [], joinedCount: 1 }), emptyRoomName)
    assert.strictEqual(nameOf({ membership: "leave", heroes: [alice], joinedCount: 0 }), "Empty Room (was Alice)")
  })

  it("adds the id to names that read the same, and to no other", () => {
    const otherAlice = { userId: "@alice:other", displayName: "Alice" }
    assert.strictEqual(nameOf({ heroes: [alice, bob, otherAlice] }), "Alice (@alice:hs), Bob and Alice (@alice:other)")
  })

  it("shows the id of a hero without a name", () => {
    assert.strictEqual(
      nameOf({ heroes: [{ userId: "@x:hs" }, { userId: "@y:hs", displayName: "  " }] }),
      "@x:hs and @y:hs"
    )
  })

  it("never counts the user among the heroes", () => {
    assert.strictEqual(nameOf({ heroes: [{ userId: me, displayName: "Me" }, alice], joinedCount: 2 }), "Alice")
  })

  describe("service members", () => {
    it("are left out of names and counts", () => {
      assert.strictEqual(nameOf({ heroes: [alice, bob], serviceMembers: [bob.userId] }), "Alice")
      assert.strictEqual(
        nameOf({ heroes: [alice, bob, carol], joinedCount: 6, serviceMembers: [bob.userId, "@bot:hs"] }),
        "Alice, Carol and 1 other"
      )
    })

    it("that are not in the room don't make it smaller", () => {
      assert.strictEqual(nameOf({ heroes: [alice], serviceMembers: ["@gone:hs"] }), "Alice")
    })

    it("alone with the user leave the room empty", () => {
      assert.strictEqual(nameOf({ heroes: [bob], serviceMembers: [bob.userId] }), emptyRoomName)
    })
  })

  describe("invites", () => {
    const invite = { inviter: dan.userId, inviterDisplayName: "Dan", isDirect: true }

    it("to a nameless direct chat are called like the inviter", () => {
      const direct = { membership: "invite", joinedCount: 0, invite } as const
      assert.strictEqual(nameOf({ ...direct, heroes: [alice, dan] }), "Dan")
      assert.strictEqual(nameOf({ ...direct, invite: { inviter: dan.userId, isDirect: true } }), dan.userId)
    })

    it("to another nameless room list who is known, else the inviter, else nobody", () => {
      const group = { membership: "invite", joinedCount: 0, invite: { ...invite, isDirect: false } } as const
      assert.strictEqual(nameOf({ ...group, heroes: [alice, dan] }), "Alice and Dan")
      assert.strictEqual(nameOf(group), "Dan")
      assert.strictEqual(nameOf({ membership: "knock", joinedCount: 0 }), emptyRoomName)
    })

    it("keep the room's own name", () => {
      assert.strictEqual(nameOf({ membership: "invite", name: "Team", joinedCount: 0, invite }), "Team")
    })
  })

  it("is never empty", () => {
    const text = fc.option(fc.constantFrom("", " ", "Alice", "Bob"), { nil: undefined })
    const heroes = fc.array(fc.record({ userId: fc.constantFrom(me, "@a:hs", "@b:hs") }), { maxLength: 4 })
    const inputs = fc.record({
      membership: fc.constantFrom("join" as const, "invite" as const, "knock" as const, "leave" as const),
      name: text,
      heroes,
      joinedCount: fc.nat(9),
      invitedCount: fc.nat(9),
      serviceMembers: fc.array(fc.constantFrom(me, "@a:hs", "@c:hs"))
    })
    fc.assert(
      fc.property(inputs, ({ name, ...rest }) => {
        assert.notStrictEqual(nameOf(name === undefined ? rest : { ...rest, name }).trim(), "")
      })
    )
  })
})
