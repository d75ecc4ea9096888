// Stands in for Salesforce's opencti_min.js: the documented methods of Open CTI for Lightning Experience, and no others.
//
// Each takes one object and answers its callback with { success, returnValue, errors }. A name, a type or a constant that
// the manual does not have is answered with INVALID_PARAM and kept in `stub.violations`, which every test expects empty.
// What a test wants at the start is in `window.stubSetup`; `stub` says what happened and plays the agent.

(() => {
  const setup = { tokens: [], view: { url: "https://acme.lightning.force.com/lightning/page/home" }, ...window.stubSetup };
  const SCREENPOP_TYPE = Object.fromEntries(
    ["SOBJECT", "URL", "OBJECTHOME", "LIST", "SEARCH", "NEW_RECORD_MODAL", "FLOW"].map((it) => [it, `pop:${it}`]),
  );
  const isText = (it) => typeof it === "string" && it !== "";
  const isObject = (it) => typeof it === "object" && it !== null && !Array.isArray(it);
  const isFunction = (it) => typeof it === "function";
  const keys = (it) => Object.keys(it).sort().join();
  // A query string, or an empty object where the method takes nothing.
  const isQuery = (it) => typeof it === "string" || (isObject(it) && keys(it) === "");

  /** Parameters: the check of each, and whether it may be left out. */
  const METHODS = {
    screenPop: {
      type: [(it) => Object.values(SCREENPOP_TYPE).includes(it)],
      params: [(it, { type }) => type === SCREENPOP_TYPE.SOBJECT && isObject(it) && keys(it) === "recordId" && isText(it.recordId)],
      callback: [isFunction, "optional"],
    },
    saveLog: {
      value: [(it) => isObject(it) && (isText(it.Id) || isText(it.entityApiName))],
      callback: [isFunction, "optional"],
    },
    runApex: {
      apexClass: [isText],
      methodName: [isText],
      methodParams: [isQuery],
      callback: [isFunction, "optional"],
    },
    getAppViewInfo: { callback: [isFunction] },
    enableClickToDial: { callback: [isFunction, "optional"] },
    disableClickToDial: { callback: [isFunction, "optional"] },
    onClickToDial: { listener: [isFunction] },
    onNavigationChange: { listener: [isFunction] },
  };

  const stub = {
    calls: [],
    violations: [],
    listeners: {},
    clickToDial: false,
    fails: { ...setup.fails },
    hangs: {},
    tokens: setup.tokens,
    view: setup.view,
    saved: 0,

    /** The agent goes to a page: { url, recordId?, recordName?, objectType?, … }. */
    navigate(view) {
      stub.view = view;
      stub.listeners.onNavigationChange(view);
    },

    /** The agent clicks a number, which is a link only while click to dial is on. */
    click(payload) {
      if (!stub.clickToDial) throw new Error("the number is no link: click to dial is off");
      stub.listeners.onClickToDial(payload);
    },

    /** The next call of a method fails so. */
    failNext(method, code, description) {
      stub.fails[method] = [{ code, description }];
    },

    /** The next call of a method gets no answer. */
    hangNext(method) {
      stub.hangs[method] = true;
    },

    called: (method) => stub.calls.filter((it) => it.method === method).map((it) => it.given),
  };

  const answers = {
    screenPop: () => null,
    getAppViewInfo: () => stub.view,
    enableClickToDial: () => ((stub.clickToDial = true), null),
    disableClickToDial: () => ((stub.clickToDial = false), null),
    saveLog: ({ value }) => ({ recordId: value.Id ?? `00T00000000000${++stub.saved}` }),
    // The last token is given again and again, as long as it lives.
    runApex: () => ({ runApex: stub.tokens.length > 1 ? stub.tokens.shift() : stub.tokens[0] }),
  };

  function wrong(method, given, more) {
    if (more.length > 0 || !isObject(given)) return "takes one object";
    const known = METHODS[method];
    const strange = Object.keys(given).find((name) => !(name in known));
    if (strange) return `has no parameter ${strange}`;
    const missing = Object.entries(known).find(([name, [check, optional]]) =>
      given[name] === undefined ? !optional : !check(given[name], given));
    return missing && `does not take that ${missing[0]}`;
  }

  function call(method, given, ...more) {
    const { callback, listener, ...rest } = isObject(given) ? given : {};
    const answer = (response) => callback && setTimeout(() => callback(response));
    const fail = (errors) => answer({ success: false, returnValue: null, errors });
    const mistake = wrong(method, given, more);
    if (mistake) {
      stub.violations.push(`${method} ${mistake}`);
      return fail([{ code: "INVALID_PARAM", description: `An invalid value was passed: ${method} ${mistake}.` }]);
    }
    stub.calls.push({ method, given: rest });
    if (listener) {
      stub.listeners[method] = listener;
    } else if (stub.hangs[method]) {
      delete stub.hangs[method];
    } else if (stub.fails[method]) {
      const errors = stub.fails[method];
      delete stub.fails[method];
      fail(errors);
    } else if (method === "runApex" && (rest.apexClass !== "SwitchboardToken" || rest.methodName !== "issue")) {
      fail([{ code: "SERVER_ERROR", description: `Could not load Apex class: ${rest.apexClass}` }]);
    } else {
      answer({ success: true, returnValue: answers[method](rest), errors: null });
    }
  }

  const methods = Object.keys(METHODS).map((method) => [method, (...given) => call(method, ...given)]);
  window.sforce = { opencti: { SCREENPOP_TYPE, ...Object.fromEntries(methods) } };
  window.stub = stub;
})();
