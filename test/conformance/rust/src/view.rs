//! What the SDK shows, as JSON.

use matrix_sdk::Room;
use matrix_sdk_ui::{
    notification_client::{
        NotificationEvent, NotificationItem, NotificationStatus, RawNotificationEvent,
    },
    sync_service::State,
    timeline::{
        EventTimelineItem, LatestEventValue, MsgLikeKind, RoomExt, TimelineDetails,
        TimelineItemContent,
    },
};
use serde_json::{Value, json};

/// The state of the sync service.
pub fn state(state: &State) -> Value {
    match state {
        State::Idle => json!({ "state": "Idle" }),
        State::Running => json!({ "state": "Running" }),
        State::Terminated => json!({ "state": "Terminated" }),
        State::Offline => json!({ "state": "Offline" }),
        State::Error(error) => json!({ "state": "Error", "why": format!("{error:#}") }),
    }
}

/// The text of a message, or why there is none.
fn content(content: &TimelineItemContent) -> Value {
    match content {
        TimelineItemContent::MsgLike(inner) => match &inner.kind {
            MsgLikeKind::Message(message) => json!({ "kind": "Message", "body": message.body() }),
            MsgLikeKind::UnableToDecrypt(message) => {
                json!({ "kind": "UnableToDecrypt", "why": format!("{message:?}") })
            }
            MsgLikeKind::Redacted => json!({ "kind": "Redacted" }),
            _ => json!({ "kind": "MessageLike" }),
        },
        TimelineItemContent::FailedToParseMessageLike { event_type, error } => {
            json!({ "kind": "FailedToParse", "why": format!("{event_type}: {error}") })
        }
        TimelineItemContent::FailedToParseState {
            event_type, error, ..
        } => {
            json!({ "kind": "FailedToParse", "why": format!("{event_type}: {error}") })
        }
        _ => json!({ "kind": "State" }),
    }
}

/// An event of a timeline.
pub fn event(item: &EventTimelineItem) -> Value {
    let name = match item.sender_profile() {
        TimelineDetails::Ready(profile) => profile.display_name.clone(),
        _ => None,
    };
    json!({
        "eventId": item.event_id(),
        "sender": item.sender(),
        "senderName": name,
        "senderDevice": item.encryption_info().and_then(|info| info.sender_device.clone()),
        "content": content(item.content()),
    })
}

async fn latest(room: &Room) -> Value {
    match RoomExt::latest_event(room).await {
        LatestEventValue::None => Value::Null,
        LatestEventValue::Remote { content: inner, .. }
        | LatestEventValue::Local { content: inner, .. } => content(&inner),
        LatestEventValue::RemoteInvite { inviter, .. } => {
            json!({ "kind": "Invite", "inviter": inviter })
        }
    }
}

/// A room as a list of rooms shows it.
pub async fn room(room: &Room) -> Value {
    let counts = room.unread_notification_counts();
    json!({
        "roomId": room.room_id(),
        "name": room.cached_display_name().map(|name| name.to_string()),
        "membership": format!("{:?}", room.state()),
        "isEncrypted": room.encryption_state().is_encrypted(),
        "joined": room.joined_members_count(),
        "latest": latest(room).await,
        // As the homeserver counts.
        "notifications": counts.notification_count,
        "highlights": counts.highlight_count,
        // As the SDK counts what it could read.
        "unreadMessages": room.num_unread_messages(),
        "unreadNotifications": room.num_unread_notifications(),
        "unreadMentions": room.num_unread_mentions(),
    })
}

fn raw(item: &NotificationItem) -> serde_json::Result<Value> {
    match &item.raw_event {
        RawNotificationEvent::Timeline(raw) => raw.deserialize_as_unchecked(),
        RawNotificationEvent::Invite(raw) => raw.deserialize_as_unchecked(),
    }
}

/// What is to be shown for a push.
pub fn notification(status: &NotificationStatus) -> anyhow::Result<Value> {
    Ok(match status {
        NotificationStatus::EventNotFound => json!({ "status": "NotFound" }),
        NotificationStatus::EventFilteredOut => json!({ "status": "FilteredOut" }),
        NotificationStatus::EventRedacted => json!({ "status": "Redacted" }),
        NotificationStatus::Event(item) => json!({
            "status": "Event",
            "isInvite": matches!(item.event, NotificationEvent::Invite(_)),
            "event": raw(item)?,
            "sender": item.event.sender(),
            "senderName": item.sender_display_name,
            "roomName": item.room_computed_display_name,
            "isEncrypted": item.is_room_encrypted,
            "isDirect": item.is_direct_message_room,
            "joined": item.joined_members_count,
            "isNoisy": item.is_noisy,
            "hasMention": item.has_mention,
        }),
    })
}
