//! matrix-rust-sdk as a program that is told what to do: what Element X is made of (`SyncService`, `RoomListService`,
//! `Timeline`, `NotificationClient`), without anything to look at.
//!
//! One JSON object a line, on standard input and output (`protocol.rs`). Warnings of the SDK go to standard error: it says
//! there what it couldn't make sense of.
//!
//! Gotchas: built without optimisation, futures of the SDK need more stack than a thread has by default.
//!
//! Not here: what must come out (`*.test.ts`).

// The SDK's futures are nested deeper than the compiler looks by default.
#![recursion_limit = "256"]

mod account;
mod protocol;
mod view;

use std::sync::Arc;

use account::Account;
use protocol::Request;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tracing_subscriber::filter::LevelFilter;

const STACK_BYTES: usize = 32 << 20;

/// Obeys until standard input ends; requests are served side by side.
async fn serve() -> anyhow::Result<()> {
    let account = Arc::new(Account::default());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let Request { id, command } = serde_json::from_str(&line)?;
        let account = account.clone();
        tokio::spawn(async move {
            match account.obey(command).await {
                Ok(value) => protocol::say(json!({ "id": id, "ok": value })),
                Err(error) => protocol::say(json!({ "id": id, "error": format!("{error:#}") })),
            }
        });
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve());
    // Standard input is read by a thread that nothing can interrupt.
    runtime.shutdown_background();
    served
}
