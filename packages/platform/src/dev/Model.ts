/** The homeserver model that the dev homeserver serves. Nothing else here imports the test kit. */
export { HomeserverHost, HomeserverModel } from "@twinloop/core/homeserver"
