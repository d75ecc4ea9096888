//! General rights and lists of users: what an envelope needs (`sending`), what a subscription brings (`subscribing`), and
//! whose envelopes an observer or a service receives (`users`), and rights that change (`changing`).

mod changing;
mod protecting;
mod sending;
mod subscribing;
mod users;
