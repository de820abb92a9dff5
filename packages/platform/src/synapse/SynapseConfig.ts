/**
 * The configuration of a throw-away Synapse: SQLite, loopback only, no federation, no presence, no rate limits.
 *
 * Synapse reads YAML, and JSON is YAML, so nothing more than `JSON.stringify` is needed.
 *
 * Gotchas: without `rc_*` a test is limited to five logins and one message in five seconds; without `ip_range_whitelist` no
 * push reaches a gateway on this host. Synapse caches the state of a connection, and then serves an expired position until
 * it has something to record; without that cache a position is expired as soon as its row is gone.
 */

export interface SynapseConfig {
  /** Absolute directory for everything that Synapse writes. */
  readonly directory: string
  readonly port: number
  readonly registrationSecret: string
  /** Synapse's own names, laid over the ones here: `refreshable_access_token_lifetime`, ... */
  readonly extra: { readonly [name: string]: unknown }
}

const unlimited = { per_second: 100_000, burst_count: 100_000 }

const rateLimits = {
  rc_message: unlimited,
  rc_registration: unlimited,
  rc_login: { address: unlimited, account: unlimited, failed_attempts: unlimited },
  rc_joins: { local: unlimited, remote: unlimited },
  rc_joins_per_room: unlimited,
  rc_invites: { per_room: unlimited, per_user: unlimited, per_issuer: unlimited },
  rc_room_creation: unlimited,
  rc_presence: { per_user: unlimited },
  rc_delayed_event_mgmt: unlimited
}

/** `homeserver.yaml`. Source: Synapse's configuration manual. */
export const homeserver = (config: SynapseConfig): string => {
  const { directory, port, registrationSecret } = config
  const resources = [{ names: ["client"], compress: false }]
  return JSON.stringify({
    server_name: "localhost",
    pid_file: `${directory}/homeserver.pid`,
    listeners: [{ port, bind_addresses: ["127.0.0.1"], tls: false, type: "http", x_forwarded: false, resources }],
    database: { name: "sqlite3", args: { database: `${directory}/homeserver.db` } },
    media_store_path: `${directory}/media`,
    signing_key_path: `${directory}/localhost.signing.key`,
    log_config: `${directory}/log.yaml`,
    registration_shared_secret: registrationSecret,
    macaroon_secret_key: registrationSecret,
    form_secret: registrationSecret,
    report_stats: false,
    trusted_key_servers: [],
    suppress_key_server_warning: true,
    ip_range_whitelist: ["127.0.0.1/32", "::1/128"],
    presence: { enabled: false },
    federation_domain_whitelist: [],
    caches: { per_cache_factors: { get_and_clear_connection_positions: 0 } },
    ...rateLimits,
    ...config.extra
  })
}

/** `log.yaml`: warnings and worse, to a file beside the database. */
export const logging = (directory: string): string =>
  JSON.stringify({
    version: 1,
    formatters: { plain: { format: "%(asctime)s %(levelname)s %(name)s %(message)s" } },
    handlers: {
      file: { class: "logging.FileHandler", formatter: "plain", filename: `${directory}/homeserver.log` }
    },
    root: { level: "WARNING", handlers: ["file"] },
    disable_existing_loggers: false
  })
