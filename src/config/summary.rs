//! What the operator chose, in a few lines: for standard error when the broker starts, and for `check`.

use super::reference::keys;
use super::{
    Admin, AuthMode, Channel, Config, Limits, LogBounds, Mode, Overflow, Publish, Salesforce, Scope, Store,
    WritableObject,
};

impl Config {
    /// Lines that say what this configuration comes to. No secret is among them.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let mut lines = vec![
            match self.auth {
                AuthMode::Open => "mode: open, for development: no token is asked".to_owned(),
                AuthMode::Tokens => "mode: tokens".to_owned(),
            },
            format!("listen: {}{}", joined(&self.listen), if self.http.insecure { " (http.insecure)" } else { "" }),
        ];
        let encrypted =
            [("listen with TLS", &self.tls.listen), ("listen for client certificates", &self.tls.client_listen)];
        lines.extend(
            encrypted
                .into_iter()
                .filter(|(_, addresses)| !addresses.is_empty())
                .map(|(what, addresses)| format!("{what}: {}", joined(addresses))),
        );
        lines.extend(self.admin.summary());
        if self.cluster.is_on() {
            lines.push(format!("cluster: {}, over {}", self.cluster.name, joined(&self.cluster.servers)));
        }
        lines.push(format!("data: {}", self.data_dir.display()));
        if self.credentials.store == Store::Salesforce {
            lines.push(self.salesforce.summary());
        } else if let Some(path) = &self.credentials.key_file {
            lines.push(format!("credentials key: {}", path.display()));
        }
        let events = &self.salesforce.events;
        if !events.topics.is_empty() {
            let topics: Vec<_> = events.topics.values().map(|it| it.topic.as_str()).collect();
            lines.push(format!("events: {} from {}", joined(&topics), events.endpoint));
        }
        lines.extend(self.salesforce.written());
        if self.auth == AuthMode::Tokens {
            let services = self.applications.iter().filter(|it| it.user.is_none()).count();
            lines.push(format!("applications: {}, services among them: {services}", self.applications.len()));
            if !self.roles.is_empty() {
                lines.push(format!("roles: {}", joined(&self.roles.names().collect::<Vec<_>>())));
            }
            lines.extend(self.issuers.iter().map(|it| {
                let issuer = it.rules.issuers.join(", ");
                format!("JWTs of {issuer}: auth.jwt.{}, keys from {}", it.name, it.keys.key())
            }));
            lines.extend(self.proofs.each().into_iter().map(|(table, proving)| {
                let of = proving.org_id.as_ref().map_or_else(String::new, |org| format!(" of org {org}"));
                format!("users{of} proved by {table}: the user is the {}", proving.user.as_str())
            }));
        }
        if !self.http.allowed_origins.is_empty() {
            lines.push(format!("origins beside loopback: {}", joined(&self.http.allowed_origins)));
        }
        if !self.http.allowed_hosts.is_empty() {
            lines.push(format!("hosts beside loopback: {}", joined(&self.http.allowed_hosts)));
        }
        if !self.http.trusted_proxies.is_empty() {
            let (header, proxies) = (self.http.forwarded_header.name(), joined(&self.http.trusted_proxies));
            lines.push(format!("trusted proxies ({header}): {proxies}"));
        }
        if !self.http.os_users.is_empty() {
            lines.push(format!("operating-system users beside the broker's own: {}", joined(&self.http.os_users)));
        }
        let mut channels: Vec<_> = self.channels.iter().collect();
        channels.sort_by_key(|(name, _)| *name);
        lines.extend(channels.into_iter().map(|(name, channel)| format!("channel {name}: {}", words(*channel))));
        lines.push(format!("protected: {}", joined(&self.protected)));
        let changed = self.changed();
        if !changed.is_empty() {
            lines.push(format!("not default: {}", changed.join(", ")));
        }
        lines
    }

    /// The numbers and durations that differ from their defaults, as `key = value`.
    fn changed(&self) -> Vec<String> {
        // A slot gives a place to write to, so it is asked on copies; the long list stays behind.
        let mut own = Self {
            requests: self.requests.clone(),
            cluster: self.cluster.clone(),
            history: self.history,
            limits: self.limits.clone(),
            recorder: self.recorder,
            resume: self.resume,
            salesforce: self.salesforce.clone(),
            proofs: self.proofs.clone(),
            ..Self::default()
        };
        let mut default = Self::default();
        default.limits.sessions_per_user = Limits::sessions_per_user_by(self.auth);
        keys()
            .filter_map(|key| {
                let value = key.slot.show(&mut own)?;
                (key.slot.show(&mut default)? != value).then(|| format!("{} = {value}", key.name))
            })
            .collect()
    }
}

impl Admin {
    fn summary(&self) -> Option<String> {
        let how = match (self.tls, self.insecure) {
            (true, _) => " (TLS)",
            (false, true) => " (admin.insecure)",
            (false, false) => "",
        };
        let is_written = !self.listen.is_empty() && !self.listen_is_default;
        is_written.then(|| format!("admin: {}{how}", joined(&self.listen)))
    }
}

impl Salesforce {
    /// What may be written, if anything.
    fn written(&self) -> Option<String> {
        let may = |object: &WritableObject| match (object.update, object.create) {
            (true, true) => "update and create",
            (true, false) => "update",
            (false, true) => "create",
            (false, false) => "nothing",
        };
        let objects: Vec<_> = self.objects.iter().map(|(name, object)| format!("{name} ({})", may(object))).collect();
        let how = self.how();
        (!objects.is_empty()).then(|| format!("records: Salesforce, {} {how}; {}", self.login_url, objects.join(", ")))
    }

    fn how(&self) -> String {
        match &self.username {
            Some(username) => format!("as {username}"),
            None => "with client credentials".to_owned(),
        }
    }

    fn summary(&self) -> String {
        let how = self.how();
        let lookup = &self.credentials;
        let from = match lookup.mode {
            Mode::Query => format!("{} by {}", lookup.object, lookup.key_field),
            Mode::ExternalId => format!("{} by the external id {}", lookup.object, lookup.key_field),
            Mode::Apex => format!("Apex REST {}", lookup.apex_path.as_deref().unwrap_or_default()),
        };
        format!("credentials: Salesforce, {} {how}; {from}", self.login_url)
    }
}

fn words(channel: Channel) -> String {
    let scope = match channel.scope {
        Scope::User => "user",
        Scope::Shared => "shared",
    };
    let publish = match channel.publish {
        Publish::All => "",
        Publish::Services => ", services publish",
    };
    let overflow = match channel.overflow {
        Overflow::Close => "",
        Overflow::DropOldest => ", drops the oldest",
    };
    let fold = if channel.fold_case { ", case folded" } else { "" };
    let history = channel.history.map_or_else(String::new, |LogBounds { size, ttl }| {
        format!(", history of {size} events for {}", humantime::format_duration(ttl))
    });
    let durable = if channel.durable { ", on disk" } else { "" };
    let retain = if channel.retain_durable { ", durable retained values" } else { "" };
    format!("{scope}{publish}{overflow}{fold}{history}{durable}{retain}")
}

fn joined<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "none".to_owned(),
        items => items.iter().map(T::to_string).collect::<Vec<_>>().join(", "),
    }
}
