// What an administrator changes. It is part of the page, never of its address: a link must not be able to send the
// agent's token to another broker. The address of Salesforce is in softphone.html.

export const settings = {
  url: "wss://switchboard.example.com/ws",
  source: "salesforce",
  // What other applications of the agent may have written, as the agent, by Salesforce/Call/SaveLog. [] for nothing.
  writable: [
    {
      object: "Task",
      prefix: "00T",
      fields: [
        "Subject", "Description", "Status", "Priority", "ActivityDate", "TaskSubtype", "WhoId", "WhatId",
        "CallType", "CallObject", "CallDisposition", "CallDurationInSeconds",
      ],
    },
  ],
};
