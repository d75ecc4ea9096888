//! Everything by keyboard alone.

use serde_json::json;

use super::{Site, applications, done, heading, log_shows, shows};
use crate::browser::{Chromium, Page};

pub(in crate::browser) async fn everything_is_done_by_keyboard(chromium: &Chromium) {
    let site = Site::start().await;
    let (mut hostile, mut phone) = applications(&site).await;
    let page = site.open(chromium).await;
    tab_to(&page, "#skip").await;
    for (path, title) in [
        ("traffic", "Traffic"),
        ("why", "Why does it not arrive?"),
        ("health", "Health"),
        ("doctor", "Doctor"),
        ("try", "Try it"),
        ("overview", "Overview"),
    ] {
        visit(&page, path, title).await;
        tab_to(&page, "#skip").await;
    }
    try_by_keyboard(&page).await;
    visit(&page, "applications", "Applications").await;
    tab_to(&page, "#skip").await;
    // Closes a session.
    page.wait(&shows("softphone")).await;
    tab_to(&page, "#source").await;
    page.type_text("softphone").await;
    page.press("Enter").await;
    page.wait("document.querySelectorAll('tbody tr').length === 1").await;
    tab_to(&page, "td.actions button").await;
    page.press("Enter").await;
    page.wait("document.activeElement.id === 'reason'").await;
    page.press("Escape").await;
    page.wait("document.querySelector('dialog') === null && document.activeElement.matches('td.actions button')").await;
    page.press("Enter").await;
    page.wait("document.activeElement.id === 'reason'").await;
    page.type_text("a test").await;
    page.press("Enter").await;
    assert_eq!(phone.closed().await, 4410);
    assert_eq!(phone.close_reason(), "a test");
    page.wait(&shows("No session has this source and user.")).await;
    hostile.fence().await;
    done(page).await;
}

/// Goes to a page by its link.
async fn visit(page: &Page<'_>, path: &str, title: &str) {
    tab_to(page, &format!("nav a[href='#/{path}']")).await;
    page.press("Enter").await;
    page.wait(&heading(title)).await;
    assert_eq!(page.evaluate("document.activeElement.id").await, "main");
}

/// Registers, subscribes and publishes on the page Try it.
async fn try_by_keyboard(page: &Page<'_>) {
    visit(page, "try", "Try it").await;
    tab_to(page, "section[aria-labelledby=register-title] [type=submit]").await;
    page.press("Enter").await;
    page.wait(&shows("Registered for alice@example.com")).await;
    tab_to(page, "#pattern").await;
    page.press("Enter").await;
    page.wait("document.querySelector('.subscriptions .badge')?.textContent === 'subscribed'").await;
    tab_to(page, "section[aria-labelledby=send-title] [type=submit]").await;
    page.press("Enter").await;
    page.wait(&log_shows("Phone/Call/Ringing 0 receivers")).await;
    tab_to(page, "#skip").await;
}

/// Presses Tab until this element has the focus.
async fn tab_to(page: &Page<'_>, selector: &str) {
    for _ in 0..40 {
        page.press("Tab").await;
        if page.evaluate(&format!("document.activeElement.matches({})", json!(selector))).await == true {
            return;
        }
    }
    panic!("Tab never reaches {selector}");
}
