//! Questions that are decided outside, and AUTH.

use super::Broker;
use super::connection::Phase;
use super::output::{Answer, Ask, ConnectionId, Grant, Output, Question, QuestionId};
use super::router::SessionKey;
use super::session::DueWill;
use crate::Timestamp;
use alloc::boxed::Box;
use alloc::string::String;
use bytes::Bytes;
use mqtt_proto::{AuthRef, PacketRef, PropertiesBuf, Property, ReasonCode};

/// What an open question is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// The packet that waits on this connection.
    Packet(ConnectionId),
    /// A will that fires.
    Will(DueWill),
}

/// Who asks.
struct Asking {
    conn: Option<ConnectionId>,
    listener: u16,
    client_id: String,
    user_name: Option<String>,
}

impl Broker {
    /// Asks about a packet of a connection that has no session yet.
    pub(super) fn ask(
        &mut self,
        index: u32,
        client_id: String,
        user_name: Option<String>,
        question: Question,
    ) -> QuestionId {
        let conn = self.id_of(index);
        let listener = self.connections.get(index).map_or(0, |c| c.listener);
        let who = Asking { conn: Some(conn), listener, client_id, user_name };
        self.put_question(Asked::Packet(conn), who, question)
    }

    /// Asks about a packet of a session.
    pub(super) fn ask_of_session(&mut self, index: u32, key: SessionKey, question: Question) -> QuestionId {
        let (client_id, user_name) = self.names_of(key);
        self.ask(index, client_id, user_name, question)
    }

    fn names_of(&self, key: SessionKey) -> (String, Option<String>) {
        self.sessions
            .get(key as usize)
            .map(|s| (s.client_id.as_ref().into(), s.user_name.as_deref().map(Into::into)))
            .unwrap_or_default()
    }

    pub(super) fn ask_about_will(&mut self, key: SessionKey, will: DueWill) {
        let Some(held) = self.messages.get(will.message) else { return };
        let question =
            Question::Will { topic: held.topic_str().into(), qos: held.qos, retain: held.retain() };
        let (client_id, user_name) = self.names_of(key);
        let listener = self.sessions.get(key as usize).map_or(0, |session| session.listener);
        let who = Asking { conn: None, listener, client_id, user_name };
        self.put_question(Asked::Will(will), who, question);
    }

    fn put_question(&mut self, asked: Asked, who: Asking, question: Question) -> QuestionId {
        let Asking { conn, listener, client_id, user_name } = who;
        self.next_question += 1;
        let id = QuestionId(self.next_question);
        self.questions.insert(id.0, asked);
        self.question_deadlines.push_back((self.now + self.config.answer_timeout, id.0));
        let ask = Ask { id, conn, listener, client_id, user_name, question };
        self.outputs.push_back(Output::Ask(Box::new(ask)));
        id
    }

    /// When the oldest open question has to be answered. All have the same time, so they are in order.
    pub(super) fn next_question_deadline(&self) -> Option<Timestamp> {
        self.question_deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Forgets the deadlines of questions that were answered, and answers those that are late with no.
    pub(super) fn settle_questions(&mut self) {
        while let Some(&(deadline, id)) = self.question_deadlines.front() {
            let open = self.questions.contains_key(&id);
            if open && deadline > self.now {
                return;
            }
            self.question_deadlines.pop_front();
            if open {
                self.answered(id, Answer::Deny(ReasonCode::NotAuthorized));
            }
        }
    }

    /// Carries on with what was waiting for the answer.
    pub(super) fn answered(&mut self, id: u64, answer: Answer) {
        let asked = self.questions.remove(&id);
        while let Some((_, oldest)) = self.question_deadlines.front()
            && !self.questions.contains_key(oldest)
        {
            self.question_deadlines.pop_front();
        }
        match asked {
            None => {}
            Some(Asked::Will(will)) => match answer {
                // Its session may have ended meanwhile.
                Answer::Allow | Answer::Grant(_) => {
                    self.wills.push_back(DueWill { publisher: None, ..will });
                }
                _ => self.forget_will(will),
            },
            Some(Asked::Packet(conn)) => {
                let Some(index) = self.index_of(conn) else { return };
                let Some(pending) = self.connections.get_mut(index).and_then(|c| c.pending.take()) else {
                    return;
                };
                self.packet_answered(index, &pending.packet, pending.since, answer);
                if let Some(c) = self.connections.get_mut(index) {
                    c.paused = true;
                }
                self.continue_reading(index);
            }
        }
    }

    /// The answer about a packet that came at `since`.
    fn packet_answered(&mut self, index: u32, bytes: &[u8], since: Timestamp, answer: Answer) {
        let Some(c) = self.connections.get(index) else { return };
        // It was decoded before it was kept.
        let Ok(packet) = PacketRef::decode(bytes, c.version) else { return };
        match packet {
            PacketRef::Connect(connect) => match answer {
                Answer::Allow | Answer::Filters(_) => self.accept(index, &connect, Grant::default()),
                Answer::Grant(grant) => self.accept(index, &connect, *grant),
                Answer::Deny(reason) => self.refuse(index, Some(connect.client_id), reason),
                Answer::Continue(data) => {
                    let Some(method) = connect.properties.authentication_method() else {
                        self.refuse(index, Some(connect.client_id), ReasonCode::NotAuthorized);
                        return;
                    };
                    if let Some(extras) = self.extras(index) {
                        extras.auth_method = Some(method.into());
                        extras.handshake = Some(bytes.into());
                    }
                    self.send_auth(index, ReasonCode::ContinueAuthentication, Some(data));
                }
            },
            PacketRef::Auth(_) => self.auth_answered(index, answer),
            PacketRef::Publish(publish) => {
                let verdict = verdict(&answer);
                self.publish_answered(index, &publish.into(), since, verdict);
            }
            PacketRef::Subscribe(subscribe) => match &answer {
                Answer::Filters(verdicts) => {
                    let verdict =
                        |n: usize| verdicts.get(n).copied().unwrap_or(Err(ReasonCode::NotAuthorized));
                    self.subscribe_answered(index, &subscribe, verdict);
                }
                answer => {
                    let verdict = verdict(answer);
                    self.subscribe_answered(index, &subscribe, |_| verdict);
                }
            },
            _ => {}
        }
    }

    /// AUTH from a client: a step of an exchange, or the wish to begin one again.
    pub(super) fn auth(&mut self, index: u32, packet: &AuthRef<'_>) {
        let Some(c) = self.connections.get(index) else { return };
        let live = c.phase == Phase::Live;
        let method = c.extras.as_ref().and_then(|extras| extras.auth_method.clone());
        let fits = match packet.reason {
            // [MQTT-4.12.0-3] [MQTT-4.12.1-1]
            ReasonCode::ContinueAuthentication => true,
            ReasonCode::ReAuthenticate => live,
            _ => false,
        };
        // [MQTT-4.12.0-5] [MQTT-4.12.0-7]
        let Some(method) = method.filter(|method| {
            fits && packet.properties.authentication_method().is_some_and(|sent| sent == method.as_ref())
        }) else {
            if live {
                self.hang_up(index, ReasonCode::ProtocolError, true);
            } else {
                self.refuse(index, None, ReasonCode::ProtocolError);
            }
            return;
        };
        let data = Bytes::copy_from_slice(packet.properties.authentication_data().unwrap_or_default());
        let question = Question::Authenticate { method: method.into_string(), data, again: live };
        let session = c.session;
        let id = match session {
            Some(key) => self.ask_of_session(index, key, question),
            None => self.ask(index, String::new(), None, question),
        };
        let mut bytes = alloc::vec::Vec::new();
        // It was decoded a moment ago, so it can be encoded.
        let _ = PacketRef::Auth(*packet).encode(mqtt_proto::Version::V5, &mut bytes);
        self.wait_for(index, id, &bytes);
    }

    fn auth_answered(&mut self, index: u32, answer: Answer) {
        let Some(c) = self.connections.get_mut(index) else { return };
        let live = c.phase == Phase::Live;
        let handshake = match &answer {
            Answer::Continue(_) => None,
            _ => c.extras.as_mut().and_then(|extras| extras.handshake.take()),
        };
        match (answer, handshake) {
            (Answer::Continue(data), _) => {
                self.send_auth(index, ReasonCode::ContinueAuthentication, Some(data));
            }
            (answer @ (Answer::Allow | Answer::Grant(_)), Some(connect)) => {
                // The CONNECT that began it is taken up again.
                self.packet_answered(index, &connect, self.now, answer);
            }
            (Answer::Allow, None) if live => {
                self.set_validity(index, None);
                self.send_auth(index, ReasonCode::Success, None);
            }
            (Answer::Grant(grant), None) if live => {
                self.set_validity(index, grant.valid_for);
                self.send_auth(index, ReasonCode::Success, grant.authentication_data);
            }
            (answer, _) => {
                let reason = verdict(&answer).err().unwrap_or(ReasonCode::NotAuthorized);
                if live {
                    // [MQTT-4.12.1-2]
                    self.hang_up(index, reason, true);
                } else {
                    // [MQTT-4.12.0-4]
                    self.refuse(index, None, reason);
                }
            }
        }
    }

    /// [MQTT-4.12.0-2] [MQTT-4.12.0-5]. Holds neither a Reason String nor User Properties
    /// ([MQTT-3.15.2-2], [MQTT-3.15.2-3]).
    fn send_auth(&mut self, index: u32, reason: ReasonCode, data: Option<Bytes>) {
        let method = self.connections.get(index).and_then(|c| c.extras.as_ref()?.auth_method.clone());
        let mut properties = PropertiesBuf::new();
        let list = [
            method.as_deref().map(Property::AuthenticationMethod),
            data.as_deref().map(Property::AuthenticationData),
        ];
        for property in list.into_iter().flatten() {
            // A method came from a packet; data that is too long is left out, and the peer says so.
            let _ = properties.push(property);
        }
        self.put(index, &PacketRef::Auth(AuthRef { reason, properties: properties.as_properties() }));
    }
}

/// What an answer says to a question of yes or no.
fn verdict(answer: &Answer) -> Result<(), ReasonCode> {
    match answer {
        Answer::Allow | Answer::Grant(_) => Ok(()),
        Answer::Deny(reason) => Err(*reason),
        Answer::Continue(_) | Answer::Filters(_) => Err(ReasonCode::NotAuthorized),
    }
}
