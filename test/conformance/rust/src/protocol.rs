//! What is said on standard input and output.
//!
//! A request is `{"id":1,"command":"send","roomId":"!a","body":"hello"}`; its answer is `{"id":1,"ok":...}` or
//! `{"id":1,"error":"..."}`. What is told without being asked is `{"told":"state",...}`.

use matrix_sdk::{
    authentication::matrix::MatrixSession,
    ruma::{OwnedDeviceId, OwnedEventId, OwnedRoomId, OwnedUserId},
};
use serde::Deserialize;
use serde_json::Value;

/// One line of standard input.
#[derive(Deserialize)]
pub struct Request {
    pub id: u64,
    #[serde(flatten)]
    pub command: Command,
}

/// Where a client keeps its data, and with whom it talks.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    pub homeserver: String,
    /// The folder of the SQLite stores.
    pub store: String,
    /// The name under which this process takes the lock that processes share; alone without.
    pub holder: Option<String>,
    /// Whether the sync service gives up when a sync fails, instead of waiting for the homeserver.
    #[serde(default)]
    pub gives_up: bool,
}

/// Who else is at work when a notification is made.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Process {
    /// The sync service is in this process.
    Single,
    /// The sync service, if it runs, is in another one.
    Multiple,
}

/// What can be asked for.
#[derive(Deserialize)]
#[serde(
    tag = "command",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Command {
    /// Logs in by password; gives the session.
    Login {
        #[serde(flatten)]
        setup: Setup,
        user: String,
        password: String,
    },
    /// Goes on with a session.
    Restore {
        #[serde(flatten)]
        setup: Setup,
        session: MatrixSession,
    },
    /// Starts the sync service; `state` and `rooms` are told from now on.
    Start,
    /// Stops the sync service.
    Stop,
    /// Shows a room, as somebody who opens it: `timeline` is told from now on.
    Open { room_id: OwnedRoomId },
    /// Loads what was before in an open room; says whether that was all.
    Paginate { room_id: OwnedRoomId },
    /// Joins a room.
    Join { room_id: OwnedRoomId },
    /// Leaves a room.
    Leave { room_id: OwnedRoomId },
    /// Sends a text at once; gives the event id.
    Send { room_id: OwnedRoomId, body: String },
    /// Leaves a text to the send queue, which sends when it can.
    Queue { room_id: OwnedRoomId, body: String },
    /// Says that everything in an open room was read.
    MarkAsRead { room_id: OwnedRoomId },
    /// Waits until a device is known.
    Knows {
        user_id: OwnedUserId,
        device_id: OwnedDeviceId,
    },
    /// Its own keys.
    Keys,
    /// Finds out what an event of a push is.
    Notification {
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        process: Process,
    },
}

/// Says one line. What else Unicode has to end lines is escaped: who reads lines may take it for an end.
pub fn say(line: Value) {
    let text = line.to_string();
    println!(
        "{}",
        text.replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029")
    );
}
