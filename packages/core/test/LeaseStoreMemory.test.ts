import { layerMemory } from "../src/lease/LeaseStoreMemory.ts"
import { leaseStoreContract } from "../src/testing/LeaseStoreContract.ts"

leaseStoreContract("LeaseStoreMemory", layerMemory)
