//! An account as an application has it: a client, its sync service, the rooms that are open.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, pin_mut};
use matrix_sdk::{
    Client,
    cross_process_lock::CrossProcessLockConfig,
    ruma::{
        DeviceId, EventId, OwnedRoomId, RoomId, UserId,
        api::client::receipt::create_receipt::v3::ReceiptType,
        events::room::message::RoomMessageEventContent,
    },
    sliding_sync::VersionBuilder,
};
use matrix_sdk_ui::{
    Timeline,
    notification_client::{NotificationClient, NotificationProcessSetup},
    room_list_service::filters::new_filter_non_left,
    sync_service::{State, SyncService},
    timeline::RoomExt,
};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    protocol::{Command, Process, Setup, say},
    view,
};

/// How many rooms are shown.
const PAGE: usize = 50;

struct Active {
    client: Client,
    service: Arc<SyncService>,
    timelines: Mutex<HashMap<OwnedRoomId, Arc<Timeline>>>,
}

/// An account that may be logged in.
#[derive(Default)]
pub struct Account {
    active: OnceCell<Active>,
}

async fn build(setup: &Setup) -> Result<Client> {
    let lock = match &setup.holder {
        Some(holder) => CrossProcessLockConfig::multi_process(holder),
        None => CrossProcessLockConfig::SingleProcess,
    };
    let client = Client::builder()
        .homeserver_url(&setup.homeserver)
        // Only a homeserver that says that it has sliding sync is taken.
        .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
        .sqlite_store(&setup.store, None)
        .cross_process_store_config(lock)
        .build()
        .await?;
    Ok(client)
}

impl Account {
    /// Does what is asked for.
    pub async fn obey(&self, command: Command) -> Result<Value> {
        match command {
            Command::Login {
                setup,
                user,
                password,
            } => {
                let client = build(&setup).await?;
                client
                    .matrix_auth()
                    .login_username(user, &password)
                    .send()
                    .await?;
                self.begin(client, &setup).await
            }
            Command::Restore { setup, session } => {
                let client = build(&setup).await?;
                client.restore_session(session).await?;
                self.begin(client, &setup).await
            }
            command => {
                self.active
                    .get()
                    .context("nobody is logged in")?
                    .obey(command)
                    .await
            }
        }
    }

    async fn begin(&self, client: Client, setup: &Setup) -> Result<Value> {
        client
            .encryption()
            .wait_for_e2ee_initialization_tasks()
            .await;
        let session = client
            .matrix_auth()
            .session()
            .context("there is no session")?;
        let mut builder = SyncService::builder(client.clone());
        if !setup.gives_up {
            builder = builder.with_offline_mode();
        }
        let service = Arc::new(builder.build().await?);
        let active = Active {
            client,
            service,
            timelines: Mutex::default(),
        };
        active.tell_states();
        active.tell_rooms();
        if self.active.set(active).is_err() {
            bail!("somebody is logged in already");
        }
        Ok(serde_json::to_value(session)?)
    }
}

impl Active {
    async fn obey(&self, command: Command) -> Result<Value> {
        match command {
            Command::Login { .. } | Command::Restore { .. } => {
                bail!("somebody is logged in already")
            }
            Command::Start => self.service.start().await,
            Command::Stop => self.service.stop().await,
            Command::Open { room_id } => self.open(&room_id).await?,
            Command::Paginate { room_id } => {
                let is_all = self
                    .timeline(&room_id)
                    .await?
                    .paginate_backwards(PAGE as u16)
                    .await?;
                return Ok(json!({ "isAll": is_all }));
            }
            Command::Join { room_id } => {
                self.client.join_room_by_id(&room_id).await?;
            }
            Command::Leave { room_id } => self.room(&room_id)?.leave().await?,
            Command::Send { room_id, body } => {
                let sent = self
                    .room(&room_id)?
                    .send(RoomMessageEventContent::text_plain(body))
                    .await?;
                return Ok(
                    json!({ "eventId": sent.response.event_id, "isEncrypted": sent.encryption_info.is_some() }),
                );
            }
            Command::Queue { room_id, body } => {
                self.timeline(&room_id)
                    .await?
                    .send(RoomMessageEventContent::text_plain(body).into())
                    .await?;
            }
            Command::MarkAsRead { room_id } => {
                let is_sent = self
                    .timeline(&room_id)
                    .await?
                    .mark_as_read(ReceiptType::Read)
                    .await?;
                return Ok(json!({ "isSent": is_sent }));
            }
            Command::Knows { user_id, device_id } => self.knows(&user_id, &device_id).await?,
            Command::Keys => {
                let encryption = self.client.encryption();
                let curve = encryption.curve25519_key().await.map(|key| key.to_base64());
                return Ok(
                    json!({ "curve25519": curve, "ed25519": encryption.ed25519_key().await }),
                );
            }
            Command::Notification {
                room_id,
                event_id,
                process,
            } => {
                return self.notification(&room_id, &event_id, process).await;
            }
        }
        Ok(json!({}))
    }

    fn room(&self, room_id: &RoomId) -> Result<matrix_sdk::Room> {
        self.client
            .get_room(room_id)
            .with_context(|| format!("it knows no room {room_id}"))
    }

    async fn timeline(&self, room_id: &RoomId) -> Result<Arc<Timeline>> {
        self.timelines
            .lock()
            .await
            .get(room_id)
            .cloned()
            .with_context(|| format!("{room_id} is not open"))
    }

    fn tell_states(&self) {
        let mut states = self.service.state();
        let client = self.client.clone();
        tokio::spawn(async move {
            while let Some(state) = states.next().await {
                // The queue stops when it can't send; an application lets it go on once it is in sync.
                if matches!(state, State::Running) {
                    client.send_queue().set_enabled(true).await;
                }
                let mut told = view::state(&state);
                told["told"] = json!("state");
                say(told);
            }
        });
    }

    fn tell_rooms(&self) {
        let service = self.service.room_list_service();
        tokio::spawn(async move {
            let list = service
                .all_rooms()
                .await
                .expect("the list of all rooms is always there");
            let (stream, controller) = list.entries_with_dynamic_adapters(PAGE);
            controller.set_filter(Box::new(new_filter_non_left()));
            pin_mut!(stream);
            let mut rooms = Default::default();
            while let Some(diffs) = stream.next().await {
                for diff in diffs {
                    diff.apply(&mut rooms);
                }
                let mut shown = Vec::new();
                for room in &rooms {
                    shown.push(view::room(room).await);
                }
                say(json!({ "told": "rooms", "rooms": shown }));
            }
        });
    }

    async fn open(&self, room_id: &RoomId) -> Result<()> {
        let room = self.room(room_id)?;
        let mut timelines = self.timelines.lock().await;
        let timeline = Arc::new(room.timeline().await?);
        timelines.insert(room_id.to_owned(), timeline.clone());
        let open: Vec<&RoomId> = timelines.keys().map(|id| &**id).collect();
        self.service
            .room_list_service()
            .subscribe_to_rooms(&open)
            .await;
        let (mut items, stream) = timeline.subscribe().await;
        let room_id = room_id.to_owned();
        tokio::spawn(async move {
            pin_mut!(stream);
            loop {
                let events: Vec<Value> = items
                    .iter()
                    .filter_map(|item| item.as_event())
                    .map(view::event)
                    .collect();
                say(json!({ "told": "timeline", "roomId": room_id, "events": events }));
                let Some(diffs) = stream.next().await else {
                    break;
                };
                for diff in diffs {
                    diff.apply(&mut items);
                }
            }
        });
        Ok(())
    }

    async fn knows(&self, user_id: &UserId, device_id: &DeviceId) -> Result<()> {
        let encryption = self.client.encryption();
        let updates = encryption.devices_stream().await?;
        pin_mut!(updates);
        while encryption.get_device(user_id, device_id).await?.is_none() {
            updates.next().await.context("no more news of devices")?;
        }
        Ok(())
    }

    async fn notification(
        &self,
        room_id: &RoomId,
        event_id: &EventId,
        process: Process,
    ) -> Result<Value> {
        let setup = match process {
            Process::Single => NotificationProcessSetup::SingleProcess {
                sync_service: self.service.clone(),
            },
            Process::Multiple => NotificationProcessSetup::MultipleProcesses,
        };
        let client = NotificationClient::new(self.client.clone(), setup).await?;
        view::notification(&client.get_notification(room_id, event_id).await?)
    }
}
