import { Context, Effect, Layer } from "effect"
import { pushConformance } from "@twinloop/core/testing"
import { DevHomeserver, layer } from "../src/dev/DevHomeserver.ts"
import { pushHarness } from "./DevHarness.ts"

const dev = Effect.map(Layer.build(layer({ port: 0 })), (context) => Context.get(context, DevHomeserver))

pushConformance("the dev homeserver", Effect.flatMap(dev, pushHarness))
