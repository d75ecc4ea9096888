// @switchboard/client/acqueon 1.0
//
// The documented messages of Acqueon Workspace, as types for `connect<Acqueon>()`. There is no code in this package.
//
// Names and types are those of the vendor's samples. Where its pages contradict each other, the sample counts: the topic of LCM is
// `WebService` here and `Webservice` in the tables. `Partial` and `More` mark what the public pages show only in part.

/** Fields that the pages do not list may follow. */
export interface More { [field: string]: unknown }
/** How Salesforce requests end. */
export interface Outcome { Success: boolean; ErrorMessage: string | null }

export interface Acqueon {
  events: Events & Commands;
  requests: Requests & { [K in keyof Commands]: { data: Commands[K]; reply: undefined } };
}

/** Messages that tell what has happened. */
export interface Events {
  "Salesforce/Call/CreateObject": More & { callId: string; Name: string; OId: string; sfid: string; DisplayField: string; DisplayValue: string };
  "Salesforce/Call/ObjectFieldParams": { WhoId: RecordInView[]; WhatId: RecordInView[] };
  "Salesforce/Call/ClickToDialPayload": ClickToDial;
  "Cisco/Call/CallsStateChange": { source: string; calls: unknown[] };
  "Cisco/Error/SetAPIError": { packet: string; data: ApiError };
  "Amazon/Agent/SetAgentState": { rules: Rules | ""; data: AmazonAgent; event: string; source: string };
  "Amazon/OutboundCall/SetAgentDetails": { blendingState: string; agentState: string; agentName: string; dialingType: string };
  "Amazon/OutboundCall/SetNailupDetails": { callStatus: string; uuid: string };
  "Amazon/OutboundCall/SetOutcomeResult": { success: boolean; message: string };
  "Amazon/InboundCall/InboundCallStateChange": CallEvent<AmazonCall>;
  "Amazon/OutboundCall/OutboundCallStateChange": CallEvent<AmazonCall>;
  "Amazon/Error/ApiError": ApiError;
  "Webex CC/Inbound/InboundCallStateChange": CallEvent<WebexCall>;
  "Webex CC/Outbound/OutboundCallStateChange": CallEvent<WebexCall>;
  "LCM/Outbound/OutBoundCallStateChange": CallEvent<More>;
}

/** Messages that ask for something and get no reply, or events instead. A handler takes them with `answers: false`. */
export interface Commands {
  "Salesforce/Call/OpenObject": { sfid: string; DisplayField?: string };
  "Cisco/Agent/SetUserInfo": Login;
  "Cisco/Agent/SetReadyState": undefined;
  "Cisco/Connection/Logout": { ReasonCodeId: string };
  "Cisco/Connection/ReInit": Login;
  "Cisco/Agent/UpdateCallVariables": { callID: string; key: string; value: string };
  "Cisco/Agent/WrapUpCall": { callID: string; wrapup: string; customwrapup: string; iscustomwrapup: boolean };
  "Cisco/InboundCall/SetANSWER": CiscoCall;
  "Cisco/InboundCall/SetHOLD": CiscoCall;
  "Cisco/InboundCall/SetDROP": CiscoCall;
  "Cisco/InboundCall/SetCONSULT": CiscoCall & { toAddress?: string };
  "Cisco/InboundCall/SetMakeCall": More & { toAddress: string };
  "Cisco/OutboundCall/SetANSWER": CiscoCall;
  "Cisco/OutboundCall/SetHOLD": CiscoCall;
  "Cisco/OutboundCall/SetDROP": CiscoCall;
  "Cisco/OutboundCall/SetCONSULT": CiscoCall & { toAddress?: string };
  "Amazon/Agent/UpdateState": { label: string; code: string; type: string };
  "Amazon/Agent/SetNotReady": { ReasonCodeId: string };
  "Amazon/InboundCall/Answer": undefined;
  /** A number (E.164), or an endpoint. */
  "Amazon/InboundCall/SetMakeCall": string | (More & { endpointARN: string; endpointId: string });
  "Amazon/OutboundCall/MakeCall": undefined;
  "Amazon/OutboundCall/SetHold": undefined;
  "Amazon/OutboundCall/Resume": undefined;
  "Amazon/OutboundCall/Disconnect": undefined;
  "Amazon/OutboundCall/ClearContact": undefined;
  "Amazon/OutboundCall/Conference": undefined;
  /** An agent. */
  "Amazon/OutboundCall/Transfer": string;
  /** A number. */
  "Webexcc/OutboundCall/MakeCall": string;
}

/** Messages with one reply, on the same triple or on another subtopic. */
export interface Requests {
  "Salesforce/User/FetchCredentials": { data: undefined; reply: Outcome & { Username: string; Password: string; Extension: string; ADFSUsername: string } };
  "Salesforce/Call/UpdateObject": { data: UpdateObject; reply: Outcome & More & Omit<UpdateObject, "params"> & { isManual: boolean } };
  "Salesforce/Call/SaveCustomVariables": { data: Variables; reply: Outcome & Variables };
  "Salesforce/Call/RemoveCustomVariables": { data: VariableNames; reply: Outcome & VariableNames };
  "Amazon/App/StateSync": { data: undefined; reply: { initState: string } };
  "Amazon/Agent/StateSync": { data: undefined; reply: AgentLogin };
  /** The reply is `LoginSuccess`. */
  "Amazon/Agent/Login": { data: undefined; reply: AgentLogin };
  /** The reply is `LogoutSuccess`. */
  "Amazon/Agent/Logout": { data: undefined; reply: AgentLogin };
  "Amazon/InboundCall/StateSync": { data: undefined; reply: { attributes: Named[]; queueName: string; queueTimestamp: string; calls: AmazonLeg[] } };
  "LCM/WebService/StateSync": { data: undefined; reply: CallInFocus[] };
  "LCM/WebService/GetScreenPopData": { data: ByCall; reply: CallReply<Record<string, string>> };
  "LCM/WebService/GetBusinessOutCome": { data: ByCall; reply: CallReply<BusinessOutcome[]> };
  "LCM/WebService/GetOutcomeByOutcomegroup": { data: { callid: string; type: string }; reply: Partial<CallReply<BusinessOutcome[]>> };
  "LCM/WebService/GetBOGroupParent": { data: ByCall; reply: CallReply<{ ParentId: string; ParentName: string; CampaignKey: string | null }[]> };
  "LCM/WebService/GetCallBackModes": { data: ByCall; reply: CallReply<ContactMode[]> };
  "LCM/WebService/GetAllCampaignDetails": { data: ByCall & { isOfflineTransaction: boolean }; reply: { response: More } };
  "LCM/WebService/GetCampaignsForMCDRequest": { data: ContactSearch; reply: More & { CampaignId: unknown; CampaignName: string; ContactID: number } };
  "LCM/WebService/GetDownloadAllContactsForDialing": { data: DownloadContacts; reply: { response: More & { Contacts: unknown[]; RequestFailureReason: string } } };
  "LCM/WebService/SetCallOutComeOffline": { data: { AccountNumber: string }; reply: { response: { OutComeID: string; Description: string }[] } };
  "LCM/WebService/SetBusinessOutcomeWithComments": { data: Disposition & { OutcomeId: number }; reply: Saved };
  "LCM/WebService/SetCallOutcomeWithComments": { data: Disposition & { OutcomeID: string }; reply: Saved };
  "LCM/WebService/SetBusinessOutcomeWithCallOutcome": { data: Disposition & { BusinessOutcome: number; CallOutcome: string }; reply: Saved };
  "LCM/WebService/SetCallbackWithComments": { data: Disposition & Callback & { CallbackModeId: number }; reply: Saved };
  "LCM/WebService/SetPersonalCallbackWithComments": { data: Disposition & Callback & { CallbackModeID: number }; reply: Saved };
  "LCM/WebService/SetBusinessOutcomeWithCallback": { data: Disposition & Callback & OutcomeOfCallback; reply: Saved };
  "LCM/WebService/SetBusinessOutcomeWithPersonalCallback": { data: Disposition & Callback & OutcomeOfCallback; reply: Saved };
  "LCM/WebService/SetNonPEWCContactOutcome": { data: { AccountNumber: string; AgentID: string; PhoneNumber: string }; reply: Omit<Saved, "callid"> };
  "LCM/WebService/CreateContact": { data: CreateContact; reply: unknown };
  "LCM/WebService/AddCompliance": { data: AddCompliance; reply: { response: { success: boolean } } };
  "LCM/WebService/ManualDialCopyContact": { data: { PhoneNumber: string }; reply: { channel: string; topic: string; subtopic: string; data: unknown } };
}

export interface Login { username: string; password: string; extension: string }
export interface ApiError { errorType: string; errorMessage: string; msg: string }
export interface Named { name: string; value: string }

export interface RecordInView { sfid: string; value: string }
export interface ClickToDial {
  number: string; recordId: string; recordName: string; recordObjectType: string;
  focusedObjectId: string; focusedObjectName: string; focusedObjectType: string; focusedObjectURL: string;
}
export interface UpdateObject { callId: string; Name: string; OId: string; sfid: string; params: Record<string, unknown> }
export interface Variables { callId: string; params: Record<string, unknown> }
export interface VariableNames { callId: string; params: string[] }

export interface CiscoCall { MediaAddress: string; CallID: string }

export interface Rules { ButtonStates: Buttons; ResponseActual: AmazonState | More }
export interface Buttons { items: Record<string, string>; count: number }
export interface AmazonState { agentStateARN: string | null; type: string; name: string; startTimestamp: string }
export interface AmazonAgent extends More { name: string; extension: string; loginName: string; muted: boolean; softphoneEnabled: boolean }
export interface AgentLogin {
  loginState: "LoggedIn" | "LoggedOut" | (string & {});
  agentInfo: (AmazonAgent & { id: string }) | null;
  agentState: AmazonState | null;
  rules: Rules | "" | null;
}
export interface AmazonLeg {
  connectionId: string; contactId: string; phoneNumber: string | null; status: string; statusTimestamp: string;
  type: "agent" | "inbound" | (string & {}); buttonStates: Record<string, boolean>;
}
/** `call.event` says what has happened: `connecting`, `connected`, `hold`, `Dropped` and others. */
export interface CallEvent<C> { source: string; call: C }
export interface AmazonCall extends More { id: string; event: string; CallType: string; ButtonStates: Buttons; CallVariables: Record<string, string> }
export interface WebexCall extends More { id: string; event: string; CallVariables: Record<string, string>; ResponseFields: More }

export interface ByCall { callid: string; AccountNumber: string }
export interface CallReply<R> { callid: string; response: R }
export interface Saved { callid: string; response: { success: boolean } }
export interface ContactMode {
  ModeID: string; Description: string; ChannelType: string; MinLength: string; MaxLength: string; Cvalue: string | null;
  PEWC: boolean; CampaignPEWC: boolean;
}
export interface CallInFocus { callid: string; campaignmodes: ContactMode[]; optionalbussinessfields: More; businessfields: unknown[] }
export interface BusinessOutcome { OutComeID: string; Description: string; CampaignID: string; LeadScore: string; ParentID: string | null }
export interface Disposition extends ByCall { UserID: string; AgentComments: string; LeadScore: number; TargetAmount: number }
/** Dates are `DD/MM/YYYY`, times `HH:mm`. */
export interface Callback { StartDate: string; EndDate: string; StartTime: string; EndTime: string }
export interface OutcomeOfCallback { OutcomeId: number; BusinessOutcome: number; CallbackModeID: number }
export interface ContactSearch { ANI: number; CallType: "INBOUND" | "OUTBOUND"; DNIS?: string; LCMKey?: string; BusinessFieldQueryToSearch?: string }
export interface DownloadContacts { CampaignGroup: string; NumberOfContactsRequired: string; Consent: string; AgentID: string; ReservedContacts: string }
export interface CreateContact extends More {
  CampaignID: string; Calltype: string; callStartDateTime: string; callEndDateTime: string;
  /** XML. */
  BussinessFields: string; Modes: string;
  priority?: number;
}
export interface AddCompliance {
  Cvalue: string; ChannelType: string; UploadType: string; Operation: string; Campaign?: string; CampaignCategory?: string;
  CallbackModeID?: number; StartDate?: string; EndDate?: string; IsBusinessFieldDNC?: boolean;
}
