/**
 * The homeserver model and its host without the rest of the test kit: for what runs outside of tests, where there is no
 * test runner to import.
 */
export * as HomeserverHost from "./HomeserverHost.ts"
export * as HomeserverModel from "../HomeserverModel.ts"
