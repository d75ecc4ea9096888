// @switchboard/client/openajax 1.0

import type { Desk } from "./switchboard.js";

/**
 * Lets a page that uses `OpenAjax.hub.publish` and `subscribe` exchange its messages with other applications, without a change of
 * the page. Returns a function that ends this.
 *
 * The first part of a name is the channel, the second the topic, and the rest the subtopic: `Phone.Call.Ringing` is the triple
 * `Phone/Call/Ringing`, and `finesse.api.Dialog.12` is `finesse/api/Dialog.12`. A missing part is `-`. In a subscription, `*`
 * stands for one part and `**` at the end for any further ones.
 *
 * If `page` has no `OpenAjax.hub`, it gets one, of specification 2.0 without managed hubs. Otherwise that of the page goes on doing
 * what it does within the page. Call this before the page subscribes.
 */
export function attachOpenAjax(desk: Desk<any>, page?: object): () => void;
