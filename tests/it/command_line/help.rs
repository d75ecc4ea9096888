//! What `--help` shows.

use super::*;

async fn help(line: &[&str]) -> String {
    let outcome = run_with(command(line), "").await;
    outcome.has(0, "");
    outcome.stdout
}

#[cfg(feature = "simulator")]
#[tokio::test]
async fn of_the_program() {
    insta::assert_snapshot!(help(&["--help"]).await, @r#"
    Message broker for the applications on a call-centre agent's desktop

    Usage: switchboard [COMMAND]

    Try it, each in a terminal of its own:
      switchboard serve                                      run a broker for this machine
      switchboard sub Phone --source log                     register, and hear a channel
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
      request      Ask a handler, and print its answer
      handle       Answer requests, from a file or a command
      apps         List the applications that are connected
      bench        Load a broker, and tell how fast it is
      credentials  Look after the credentials that agents fetch
      token        Make tokens for applications
      check        Find the mistakes in a configuration
      simulate     Run a stand-in for a system that the broker asks
      completions  Print a completion script for a shell
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    "#);
}

#[tokio::test]
async fn of_sub() {
    insta::assert_snapshot!(help(&["sub", "--help"]).await, @r#"
    Print the events that a pattern matches

    Usage: switchboard sub [OPTIONS] --source <NAME> [CHANNEL] [TOPIC] [SUBTOPIC]

    Arguments:
      [CHANNEL]   Channel, or '*' [default: *]
      [TOPIC]     Topic, or '*' [default: *]
      [SUBTOPIC]  Subtopic, or '*' [default: *]

    Options:
          --count <N>       End after this many
          --group <NAME>    Share the events with the other members of a group, one each
          --observe <USER>  Hear a user's events, or with '*' everybody's; needs the permission to
                            observe
      -h, --help            Print help

    Connection:
          --url <URL>          The broker's address [default: ws://127.0.0.1:7420/ws]
          --source <NAME>      The name to register under
          --token-file <FILE>  A file that holds the token; without it, the environment variable
                               SWITCHBOARD_TOKEN does
          --user <NAME>        The user to be; a broker in open mode believes it

    Examples:
      switchboard sub --source log                              every event
      switchboard sub Phone Call --source log                   every event of the topic Call
      switchboard sub '*' Call Ringing --source log --count 1   the next one, whatever its channel
      switchboard sub Phone --source log | jq .data             JSON lines when piped
      switchboard sub Broker Application Joined --source log    who comes

    Events of the channel Broker have to be named.
    It reconnects by itself; what was published meanwhile is missed.
    Ctrl-C ends it, with exit code 0.
    "#);
}

#[tokio::test]
async fn of_pub() {
    insta::assert_snapshot!(help(&["pub", "--help"]).await, @r#"
    Publish an event

    Usage: switchboard pub [OPTIONS] --source <NAME> <CHANNEL> <TOPIC> <SUBTOPIC> [DATA|@FILE|-]

    Arguments:
      <CHANNEL>       Channel
      <TOPIC>         Topic
      <SUBTOPIC>      Subtopic
      [DATA|@FILE|-]  The payload: JSON, @FILE, or - for standard input; none if left out

    Options:
          --receipt        Print the broker's receipt: how many received the event
          --retain         Keep the event as the last value, for later subscribers
          --target <NAME>  Only for sessions of this source
          --for <USER>     For this user; a service has to say so on a user-scoped channel
      -h, --help           Print help

    Connection:
          --url <URL>          The broker's address [default: ws://127.0.0.1:7420/ws]
          --source <NAME>      The name to register under
          --token-file <FILE>  A file that holds the token; without it, the environment variable
                               SWITCHBOARD_TOKEN does
          --user <NAME>        The user to be; a broker in open mode believes it

    Examples:
      switchboard pub Phone Call Ringing '{"from":"+49301234"}' --source softphone
      switchboard pub Phone Agent State '"ready"' --source softphone --retain
      switchboard pub Phone Agent State null --source softphone --retain   forgets it
      switchboard pub Crm Contact Changed @contact.json --source crm --receipt
      date +%s | switchboard pub Clock Tick Now - --source clock

    A refused event is exit code 1, with or without --receipt.
    "#);
}

#[tokio::test]
async fn of_request() {
    insta::assert_snapshot!(help(&["request", "--help"]).await, @r#"
    Ask a handler, and print its answer

    Usage: switchboard request [OPTIONS] --source <NAME> <CHANNEL> <TOPIC> <SUBTOPIC> [DATA|@FILE|-]

    Arguments:
      <CHANNEL>       Channel
      <TOPIC>         Topic
      <SUBTOPIC>      Subtopic
      [DATA|@FILE|-]  The payload: JSON, @FILE, or - for standard input; none if left out

    Options:
          --timeout <DURATION>  How long to wait for an answer [default: 10s]
          --gather              Ask every handler, and print what each answers
          --idempotent          Let the broker ask another handler if the first one dies
          --envelope            Print whole envelopes, not payloads
          --target <NAME>       Only handlers of this source
          --for <USER>          For this user; for services
      -h, --help                Print help

    Connection:
          --url <URL>          The broker's address [default: ws://127.0.0.1:7420/ws]
          --source <NAME>      The name to register under
          --token-file <FILE>  A file that holds the token; without it, the environment variable
                               SWITCHBOARD_TOKEN does
          --user <NAME>        The user to be; a broker in open mode believes it

    Examples:
      switchboard request Salesforce User FetchCredentials --source softphone
      switchboard request Crm Contact Find '"+49301234"' --source softphone --timeout 3s
      switchboard request Phone Agent GetState --source wallboard --gather
      switchboard request Crm Contact Find @query.json --source softphone | jq -r .Name

    Prints the payload of the answer, or of each: one a line.
    An answer with "Success":false is printed too and is exit code 1.
    No answer in time is exit code 4.
    With --gather, exit code 1 says that a handler failed, or that there is none.
    Ctrl-C cancels the request, with exit code 1.
    "#);
}

#[tokio::test]
async fn of_handle() {
    insta::assert_snapshot!(help(&["handle", "--help"]).await, @r#"
    Answer requests, from a file or a command

    Usage: switchboard handle [OPTIONS] --source <NAME> <--reply <DATA|@FILE>|--exec <COMMAND>> <CHANNEL> <TOPIC> <SUBTOPIC>

    Arguments:
      <CHANNEL>   Channel, or '*'
      <TOPIC>     Topic, or '*'
      <SUBTOPIC>  Subtopic, or '*'

    Options:
          --reply <DATA|@FILE>  Answer every request with this JSON
          --exec <COMMAND>      Answer with what this command prints
          --count <N>           End after this many requests
      -h, --help                Print help

    Connection:
          --url <URL>          The broker's address [default: ws://127.0.0.1:7420/ws]
          --source <NAME>      The name to register under
          --token-file <FILE>  A file that holds the token; without it, the environment variable
                               SWITCHBOARD_TOKEN does
          --user <NAME>        The user to be; a broker in open mode believes it

    Examples:
      switchboard handle Crm Contact Find --source crm --reply '{"Success":true,"Name":"Ada"}'
      switchboard handle Crm Contact Find --source crm --reply @contact.json --count 1
      switchboard handle Crm Contact '*' --source crm --exec 'jq "{Success: true, Number: .data}"'
      switchboard handle Salesforce User FetchCredentials --source fake --exec ./credentials.sh

    The command is run with `sh -c` once for each request, several at a time.
    It reads the envelope, one line, on standard input and prints the answer's payload: JSON, or
    nothing.
    Another exit code than 0 makes the answer a failure.
    It is ended when nobody waits for its answer any longer.
    Ctrl-C ends the handler, with exit code 0.
    "#);
}

#[tokio::test]
async fn of_apps() {
    insta::assert_snapshot!(help(&["apps", "--help"]).await, @r#"
    List the applications that are connected

    Usage: switchboard apps [OPTIONS] --source <NAME>

    Options:
          --json  Print a JSON array
      -h, --help  Print help

    Connection:
          --url <URL>          The broker's address [default: ws://127.0.0.1:7420/ws]
          --source <NAME>      The name to register under
          --token-file <FILE>  A file that holds the token; without it, the environment variable
                               SWITCHBOARD_TOKEN does
          --user <NAME>        The user to be; a broker in open mode believes it

    Examples:
      switchboard apps --source log
      switchboard apps --source log --json | jq -r '.[].Source'

    Lists the applications of one's own user and the services; all of them for a service or an observer.
    This command's own session is among them.
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
