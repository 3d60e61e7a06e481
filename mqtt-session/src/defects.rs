//! Rules that can be broken on purpose, to see that the tests would notice. Only a build with
//! `--cfg mqtt_defects` has any of this; in all others `defect!(...)` is `false` and leaves nothing.

#[cfg(mqtt_defects)]
mod chosen {
    use core::sync::atomic::{AtomicUsize, Ordering};

    macro_rules! defects {
        ($($name:ident: $what:literal,)*) => {
            /// A rule that can be broken.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum Defect { $(#[doc = $what] $name,)* }

            impl Defect {
                /// All of them, by name, and what each breaks.
                pub const ALL: &'static [(Self, &'static str, &'static str)] =
                    &[$((Self::$name, stringify!($name), $what),)*];
            }
        };
    }

    defects! {
        ForgetDup: "a PUBLISH that is sent again has no DUP",
        DupAlways: "the first PUBLISH has DUP",
        CreditAtPubrec: "PUBREC gives the place in the window back",
        IgnoreWindow: "more is under way than the peer's Receive Maximum",
        LosePubrel: "PUBREL is not sent again on a new link",
        ReuseId: "a packet identifier is given twice",
        WrapSticks: "after 65,535 identifiers do not begin again",
        LeakId: "PUBCOMP does not end the exchange",
        ForgetResend: "what was under way is not sent again on a new link",
        QueueReversed: "messages leave in the wrong order",
        QueueLost: "the queue does not outlive the connection",
        QueueUnbounded: "a queue takes more than its limit",
        AckEarly: "an acknowledgement leaves before its operations are stored",
        RouteEarly: "a QoS 2 message is seen before its identifier is stored",
        Qos2Twice: "a QoS 2 message that comes again is taken as new",
        ForgetReceived: "identifiers of QoS 2 messages are forgotten with the link",
        RestoreForgetsReceived: "identifiers of QoS 2 messages are forgotten in a crash",
        RestoreForgetsStage: "a crash forgets that PUBREC came",
        EntryStays: "an entry that was acknowledged stays in the store",
        AppendMissing: "a message for a stored queue is not stored",
        QosAsPublished: "the granted QoS is ignored",
        RetainAsPublished: "the retain flag is always forwarded",
        RetainedStays: "an empty payload does not remove the retained message",
        RetainedNewest: "the first retained message of a topic stays",
        RetainedAgain: "a subscription that was there gets what is retained, against Retain Handling 1",
        RetainedUnwanted: "a subscription gets what is retained, against Retain Handling 2",
        RetainedMissing: "a subscription does not get what is retained",
        ExpiryIgnored: "an expired message is sent",
        ExpiryNotReduced: "the forwarded expiry is that of the publication",
        TooLargeSent: "a packet is larger than the client takes",
        AliasUnknown: "an alias is used before it is set",
        SubscriptionIdMissing: "the identifiers of subscriptions are left out",
        NoLocalIgnored: "a client gets back what it published, against No Local",
        UnsubscribeIgnored: "a subscription goes on after UNSUBACK",
        SessionPresentAlways: "CONNACK claims a session that is not there",
        CleanStartIgnored: "Clean Start finds the old session",
        SessionNeverExpires: "a session outlives its expiry",
        TakeOverUntold: "who is taken over is not told",
        WillAfterDisconnect: "a will is published although the client took leave",
        WillLost: "a will is not published",
        WillTwice: "a will is published twice",
        WillAtOnce: "the will's delay is ignored",
        WillNotCancelled: "a client that returns in time does not cancel its will",
        GroupTwice: "two members of a group get the same message",
        ShardHomeIgnored: "a session is made on the shard that the connection reached",
        ShardInterestUntold: "other shards do not hear of subscriptions",
        ShardSubackEarly: "SUBACK leaves before the other shards know of the subscription",
        ShardCreditIgnored: "publishers go on although another shard has no room",
        ShardCreditLost: "room on another shard is used up and never given back",
        ShardMarkIgnored: "a retained message that comes live comes with the answer as well",
        ShardReturnLost: "what no member of a group here can have does not go back to the group's shard",
        ShardHandOverUnstored: "a message that another shard is to get is not stored until it is there",
        ShardTakenUnstored: "what another shard handed over is taken, and that it was is not stored",
        ShardTakenAgain: "a restart delivers what was handed over although the other shard had taken it",
        ShardSafeEarly: "a shard tells another that a message is safe before it is",
        ShardSlotsIgnored: "more of a group is handed to another shard than it has room for",
        ClientAckEarly: "the client acknowledges before it has stored",
        ClientForgetsReceived: "the client takes a repeated QoS 2 message as new",
        ClientKeepsSession: "the client goes on with a session that the server has lost",
        ClientDropsQueue: "the client loses what waits when the link goes",
    }

    /// 0: none.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    impl Defect {
        /// Breaks this rule from now on, in the whole process, and no other.
        pub fn choose(self) {
            CHOSEN.store(self as usize + 1, Ordering::Relaxed);
        }

        pub(crate) fn is_chosen(self) -> bool {
            CHOSEN.load(Ordering::Relaxed) == self as usize + 1
        }
    }
}
#[cfg(mqtt_defects)]
pub use chosen::Defect;

/// Whether this rule is broken.
#[cfg(mqtt_defects)]
macro_rules! defect {
    ($name:ident) => {
        $crate::defects::Defect::$name.is_chosen()
    };
}
/// Whether this rule is broken: never.
#[cfg(not(mqtt_defects))]
macro_rules! defect {
    ($name:ident) => {
        false
    };
}
pub(crate) use defect;
