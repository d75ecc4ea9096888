//! The output of `--help`.

use super::*;

async fn help(line: &[&str]) -> String {
    let outcome = run_with(command(line), "").await;
    outcome.has(0, "");
    outcome.stdout
}

/// The options that every command that connects has.
const CONNECTION: &str = "\
Connection:
      --url <URL>          The address of the broker; wss:// for TLS, ws+unix://PATH:/ws for a Unix
                           socket [env: SWITCHBOARD_URL] [default: ws://127.0.0.1:7420/ws]
      --source <NAME>      The name to register [env: SWITCHBOARD_SOURCE]
      --token-file <FILE>  A file with the token; default: the environment variable
                           SWITCHBOARD_TOKEN
      --user <NAME>        The user of this session, for a broker in open mode [env:
                           SWITCHBOARD_USER]
      --ca-file <FILE>     A PEM file with further certificate authorities to trust for wss://
";

/// The help of a command that connects, without those options.
async fn help_of_client(line: &[&str]) -> String {
    let text = help(line).await;
    assert!(text.contains(CONNECTION), "{text}");
    text.replace(CONNECTION, "Connection: as for every command that connects\n")
}

#[cfg(feature = "simulator")]
#[tokio::test]
async fn of_the_program() {
    insta::assert_snapshot!(help(&["--help"]).await, @r#"
    Message broker for the applications on a call-centre agent's desktop

    Usage: switchboard [COMMAND]

    Try it, each in a terminal of its own:
      switchboard serve                                      run a broker for this machine
      switchboard sub Phone --source log                     print the events of a channel
      switchboard pub Phone Call Ringing '{"from":"+4930123"}' --source softphone
      switchboard credentials set local --username 1001 --extension 5051
      switchboard request Salesforce User FetchCredentials --source softphone

    Exit codes:
      0  done
      1  refused or failed; standard error has CODE: message
      2  wrong usage, configuration, key or store, or an address in use
      3  could not connect, or lost the connection
      4  timed out

    Commands:
      serve        Run the broker (the default)
      sub          Print the events that a pattern matches
      pub          Publish an event
      request      Send a request to a handler, and print the answer
      handle       Answer requests, with fixed JSON or a command
      apps         List the connected applications
      health       Say whether a broker is ready
      top          Watch a broker live
      sessions     List the sessions of a broker
      nodes        List the nodes of a cluster
      close        Close sessions
      explain      Say who would get a message, and why others would not
      console      Open the console of a broker in the browser
      doctor       Find out what keeps a page in a browser from connecting
      reload       Reload the configuration of a broker
      recent       Show what happened last in a broker
      drain        Drain a broker, and end its process
      bench        Measure the speed of a broker
      conformance  Check a client against the protocol
      credentials  Manage the credentials that agents fetch
      audit        Check the audit log
      history      Look at the logs of durable channels, and repair their file
      cluster      Move what one broker kept into a cluster
      token        Make tokens for applications
      cert         Make and renew certificates for TLS
      check        Find the mistakes in a configuration
      simulate     Run a simulated Salesforce org
      completions  Print a completion script for a shell
      man          Write man pages
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    "#);
}

#[tokio::test]
async fn of_sub() {
    insta::assert_snapshot!(help_of_client(&["sub", "--help"]).await, @r#"
    Print the events that a pattern matches

    Usage: switchboard sub [OPTIONS] --source <NAME> [CHANNEL] [TOPIC] [SUBTOPIC]

    Arguments:
      [CHANNEL]   Channel, or '*' [default: *]
      [TOPIC]     Topic, or '*' [default: *]
      [SUBTOPIC]  Subtopic, or '*' [default: *]

    Options:
          --count <N>                      End after N events
          --group <NAME>                   Share the events with the other members of a group: each
                                           event goes to one member
          --observe <USER>                 Print the events of this user, or of all users ('*'); needs
                                           the permission to observe
          --recover <last:N|EPOCH:OFFSET>  Begin with kept events: the last N, or those after a position
          --resume                         Continue the session after a lost connection, so that nothing
                                           is missed
          --json                           Print JSON lines, also on a terminal
      -h, --help                           Print help

    Connection: as for every command that connects

    Examples:
      switchboard sub --source log                              every event
      switchboard sub Phone Call --source log                   every event of the topic Call
      switchboard sub '*' Call Ringing --source log --count 1   the next one, whatever its channel
      switchboard sub Phone --source log | jq .data             JSON lines when piped
      switchboard sub Phone --source log --recover last:50      the last 50 kept events, then live ones
      switchboard sub Broker Application Joined --source log    applications that register

    '*' as channel does not match the channel Broker.
    A broker in open mode sends the events of all users, unless --user names one.
    The command reconnects by itself, and says whether events may be missing. None are if the channel
    has history, or with --resume within the broker's grace.
    --recover needs a channel with history, and prints what one user receives (see --observe).
    Ctrl-C ends it, with exit code 0.
    "#);
}

#[tokio::test]
async fn of_pub() {
    insta::assert_snapshot!(help_of_client(&["pub", "--help"]).await, @r#"
    Publish an event

    Usage: switchboard pub [OPTIONS] --source <NAME> <CHANNEL> <TOPIC> <SUBTOPIC> [DATA|@FILE|-]

    Arguments:
      <CHANNEL>       Channel
      <TOPIC>         Topic
      <SUBTOPIC>      Subtopic
      [DATA|@FILE|-]  The payload: JSON, @FILE, or - for standard input; default: no payload

    Options:
          --receipt        Print the broker's receipt: the number of receivers
          --json           Print the receipt as JSON, also on a terminal
          --retain         Retain the event as the last value of its triple, for later subscribers
          --id <ID>        The id of the event; default: a new one
          --once           Deliver an event with this id at most once, in a channel with history
          --message        Put the payload into the field message instead of data
          --target <NAME>  Send only to sessions of this source
          --for <USER>     The user whom the event is for; a service must name one on a user-scoped
                           channel
      -h, --help           Print help

    Connection: as for every command that connects

    Examples:
      switchboard pub Phone Call Ringing '{"from":"+49301234"}' --source softphone
      switchboard pub Phone Agent State '"ready"' --source softphone --retain
      switchboard pub Phone Agent State null --source softphone --retain   clears the retained value
      switchboard pub Crm Contact Changed @contact.json --source crm --receipt
      switchboard pub Crm Case Opened 4711 --source crm --id case-4711 --once   safe to repeat
      date +%s | switchboard pub Clock Tick Now - --source clock

    A refused event is exit code 1, also without --receipt.
    After exit code 3 or 4, it is unknown whether the event was delivered. With --id and --once, the
    command can be repeated: in a channel with history, the event is delivered once.
    "#);
}

#[tokio::test]
async fn of_request() {
    insta::assert_snapshot!(help_of_client(&["request", "--help"]).await, @r#"
    Send a request to a handler, and print the answer

    Usage: switchboard request [OPTIONS] --source <NAME> <CHANNEL> <TOPIC> <SUBTOPIC> [DATA|@FILE|-]

    Arguments:
      <CHANNEL>       Channel
      <TOPIC>         Topic
      <SUBTOPIC>      Subtopic
      [DATA|@FILE|-]  The payload: JSON, @FILE, or - for standard input; default: no payload

    Options:
          --timeout <DURATION>  The time limit [default: 10s]
          --gather              Send the request to all handlers
          --idempotent          Let the broker give the request to a second handler if the first one
                                goes away
          --id <ID>             The id of the request, by which a handler recognises a repeated one;
                                default: a new one
          --message             Put the payload into the field message instead of data
          --envelope            Print whole envelopes, not payloads
          --json                Print JSON lines, also on a terminal
          --target <NAME>       Send only to handlers of this source
          --for <USER>          The user whom the request is for; a service must name one on a
                                user-scoped channel
      -h, --help                Print help

    Connection: as for every command that connects

    Examples:
      switchboard request Salesforce User FetchCredentials --source softphone
      switchboard request Crm Contact Find '"+49301234"' --source softphone --timeout 3s
      switchboard request Phone Agent GetState --source wallboard --gather
      switchboard request Crm Contact Find @query.json --source softphone | jq -r .Name

    Prints the payload of each answer on a line.
    An answer with "Success":false is also printed; the exit code is 1.
    No answer within the time limit is exit code 4.
    With --gather, exit code 1 means that a handler failed, or that there is none.
    Ctrl-C cancels the request; the exit code is 1.
    "#);
}

#[tokio::test]
async fn of_handle() {
    insta::assert_snapshot!(help_of_client(&["handle", "--help"]).await, @r#"
    Answer requests, with fixed JSON or a command

    Usage: switchboard handle [OPTIONS] --source <NAME> <--reply <DATA|@FILE>|--exec <COMMAND>> <CHANNEL> <TOPIC> <SUBTOPIC>

    Arguments:
      <CHANNEL>   Channel, or '*'
      <TOPIC>     Topic, or '*'
      <SUBTOPIC>  Subtopic, or '*'

    Options:
          --reply <DATA|@FILE>        Answer every request with this JSON
          --exec <COMMAND>            Answer with the output of this command
          --message                   Put the payloads of answers into the field message instead of data
          --count <N>                 End after N requests
          --ordered                   Take one request at a time
          --replies <TOPIC/SUBTOPIC>  A further triple of answers, for --ordered; can be repeated
          --json                      Print a JSON line for each request
      -h, --help                      Print help

    Connection: as for every command that connects

    Examples:
      switchboard handle Crm Contact Find --source crm --reply '{"Success":true,"Name":"Ada"}'
      switchboard handle Crm Contact Find --source crm --reply @contact.json --count 1
      switchboard handle Crm Contact '*' --source crm --exec 'jq "{Success: true, Number: .data}"'
      switchboard handle Salesforce User FetchCredentials --source fake --exec ./credentials.sh

    The command is run with `sh -c`, once per request, several at a time.
    It reads the envelope as one line of standard input, and prints the payload of the answer: JSON, or
    nothing.
    If its exit code is not 0, or its output is longer than the broker's messages, the answer is a
    failure.
    The answer is sent when the command ends, whatever it left running in the background.
    Then, or when the requester no longer waits, all processes that it started are ended.
    Ctrl-C ends the handler, with exit code 0.
    "#);
}

#[tokio::test]
async fn of_apps() {
    insta::assert_snapshot!(help_of_client(&["apps", "--help"]).await, @r#"
    List the connected applications

    Usage: switchboard apps [OPTIONS] --source <NAME>

    Options:
          --json  Print a JSON array
      -h, --help  Print help

    Connection: as for every command that connects

    Examples:
      switchboard apps --source log
      switchboard apps --source log --json | jq -r '.[].Source'

    Lists the applications of the session's user and the services. A service, an observer, and in open
    mode every session gets the applications of all users. The list includes the session of this
    command.
    "#);
}

#[tokio::test]
async fn of_completions() {
    insta::assert_snapshot!(help(&["completions", "--help"]).await, @r#"
    Print a completion script for a shell

    Usage: switchboard completions <SHELL>

    Arguments:
      <SHELL>  The shell [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help  Print help

    Examples:
      switchboard completions bash > ~/.local/share/bash-completion/completions/switchboard
      switchboard completions zsh > ~/.zfunc/_switchboard
      switchboard completions fish > ~/.config/fish/completions/switchboard.fish
    "#);
}

#[tokio::test]
async fn of_man() {
    insta::assert_snapshot!(help(&["man", "--help"]).await, @"
    Write man pages

    Usage: switchboard man <DIR>

    Arguments:
      <DIR>  The folder for the pages, one for each command. It is made if there is none

    Options:
      -h, --help  Print help

    Examples:
      switchboard man ~/.local/share/man/man1
      switchboard man /usr/local/share/man/man1
    ");
}

#[tokio::test]
async fn of_cert_new() {
    insta::assert_snapshot!(help(&["cert", "new", "--help"]).await, @"
    Make a certificate authority of this machine, and a certificate that it signs

    Usage: switchboard cert new [OPTIONS]

    Options:
          --host <HOST>     A name or an address that clients connect to; can be repeated [default:
                            localhost 127.0.0.1 ::1]
          --days <DAYS>     The number of days that the certificate is valid, 1 to 825 [default: 397]
          --out <DIR>       The folder of the certificates; default: tls in the data folder
          --data-dir <DIR>  The data folder; default: that of the configuration, or else the platform's
                            data folder
          --config <FILE>   The configuration file, which names the data folder
      -h, --help            Print help

    Examples:
      switchboard cert new
      switchboard cert new --host broker.example.com --host 10.1.2.3 --out /etc/switchboard/tls
      switchboard cert trust

    Writes ca.pem, ca.key, cert.pem and key.pem. Existing files are never overwritten. The authority can
    sign certificates of these hosts only, and of names below them (app.broker.example.com), for 10
    years. Programs that connect have to trust ca.pem.
    ");
}
