/** The path of the one file of `twinloop notify`, or `undefined` when it isn't there or older than what it is made of. */
export declare const freshBundle: () => string | undefined

/** Where V8 keeps what it has compiled of the file. */
export declare const cacheDirectory: string
