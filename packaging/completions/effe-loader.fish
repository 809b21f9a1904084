complete -c effe-loader -s p -l plugin -d 'The lambda to serve: a file built from a crate with effe_abi::export!' -r -F
complete -c effe-loader -l port -d 'The port to listen on, 0 for any free one [default: $PORT, or 8080]' -r
complete -c effe-loader -l listen -d 'Where to listen, repeatable: HOST:PORT or unix:PATH' -r
complete -c effe-loader -l host -d 'The address to listen on [default: all, 0.0.0.0]' -r
complete -c effe-loader -l set -d 'A parameter for the lambda; key=@file reads it from a file, as secrets should be' -r
complete -c effe-loader -l params -d 'Parameters from a file that holds a JSON object, or the object itself ({…}); --set comes on top' -r
complete -c effe-loader -l workers -d 'Threads that serve connections, of each process [default: one per CPU]' -r
complete -c effe-loader -l processes -d 'Serve with so many processes, or auto for one per CPU, under a supervisor that replaces one that crashes' -r
complete -c effe-loader -l fault-grace -d 'With --processes: how long other requests may take to finish in a process that has crashed, 0 for none' -r
complete -c effe-loader -l max-memory -d 'With --processes: how much memory a process may have before another one takes its place and its connections' -r
complete -c effe-loader -l max-requests -d 'With --processes: how many requests a process may have before another one takes its place and its connections' -r
complete -c effe-loader -l confine -d 'With --processes: take from each process, before Init, the files, ports and calls that a lambda rarely needs; try, or require, which serves only if the system can take all of them' -r
complete -c effe-loader -l allow-read -d 'What a confined process may read beyond the system\'s libraries and certificates: a file, or all below a directory' -r -F
complete -c effe-loader -l allow-write -d 'What a confined process may read and write: a file, or all below a directory' -r -F
complete -c effe-loader -l allow-connect -d 'The TCP ports that a confined process may connect to, or any, or none [default: any]' -r
complete -c effe-loader -l idle-exit -d 'End when no request has come for so long, until the next one: with --processes, or a socket of systemd\'s' -r
complete -c effe-loader -l syslog -d 'Where what the lambda reports goes: auto, none, unix:PATH, udp://HOST:PORT or tcp://HOST:PORT' -r
complete -c effe-loader -l log-format -d 'How lines on stderr look: text, json, or auto (text on a terminal)' -r
complete -c effe-loader -l body-limit -d 'The largest request body, 0 for any' -r
complete -c effe-loader -l read-timeout -d 'How long a client may take for a request\'s head, or let its body rest, 0 for ever; then 408' -r
complete -c effe-loader -l write-timeout -d 'How long a client may not read what it is sent, 0 for ever; then the connection is broken off' -r
complete -c effe-loader -l upgrade-timeout -d 'How long nothing may come or go on a connection that a lambda has taken over, 0 for ever; then it is closed' -r
complete -c effe-loader -l keep-alive -d 'How long a connection may idle between two requests, 0 for ever' -r
complete -c effe-loader -l max-connections -d 'How many connections there may be at once [default: half of the files that may be open]' -r
complete -c effe-loader -l drain-timeout -d 'How long requests may take to finish once the loader is told to stop' -r
complete -c effe-loader -l drain-delay -d 'How long connections are still taken after SIGTERM, while whoever sends them learns of it' -r
complete -c effe-loader -l admin -d 'Where health, state, metrics and orders are: ADDRESS:PORT or unix:PATH' -r
complete -c effe-loader -l admin-token-file -d 'The token that orders need, and off loopback everything' -r -F
complete -c effe-loader -l tls-cert -d 'Speak TLS, everywhere but at --admin: the certificate and its chain as PEM, read again at SIGHUP' -r -F
complete -c effe-loader -l tls-key -d 'The certificate\'s key as PEM' -r -F
complete -c effe-loader -l held-limit -d 'Bytes of bodies that are held at once: requests that are read whole, answers that wait for their clients; 0 for any; past it requests get 503 [default: a quarter of the memory, at most 1GiB]' -r
complete -c effe-loader -l response-limit -d 'The largest response that is held whole' -r
complete -c effe-loader -l execution -d 'Where the lambda runs: inline (on the server\'s threads), pool, or auto (as measured)' -r
complete -c effe-loader -l queue -d 'How many requests may wait for a thread [default: ten times --max-concurrency]' -r
complete -c effe-loader -l queue-timeout -d 'How long a request may wait for a thread, 0 for ever; then 503' -r
complete -c effe-loader -l run-timeout -d 'How long a request may take, 0 for ever; then 504, and the run is left to end' -r
complete -c effe-loader -l max-lost-threads -d 'How many threads may be lost to runs past --run-timeout before the effe is not ready' -r
complete -c effe-loader -l max-concurrency -d 'How many requests may run at once' -r
complete -c effe-loader -l max-async -d 'How many requests an async lambda may have at once' -r
complete -c effe-loader -l max-idle -d 'How many idle Contexts are kept' -r
complete -c effe-loader -l idle-timeout -d 'How long a Context that nobody needs is kept, 0 for ever' -r
complete -c effe-loader -l syslog-format -d 'How lines in syslog look: rfc3164, or rfc5424 with structured data (and over TCP with lengths, not lines)' -r
complete -c effe-loader -l access-log -d 'Log requests: all, or a share such as 10% (and whatever is answered with 500 or more); no query, cookie or body' -r
complete -c effe-loader -l access-log-with -d 'What --access-log has beyond the usual: query, or the name of a request header; may be repeated' -r
complete -c effe-loader -l sha256 -d 'A plugin that may be loaded, by its SHA-256; may be repeated, and then nothing else is loaded' -r
complete -c effe-loader -l sha256-file -d 'Plugins that may be loaded, as sha256sum lists them; read again for each plugin' -r -F
complete -c effe-loader -l aws-api -d 'Where clients of AWS Lambda may invoke the lambda by its name: ADDRESS:PORT or unix:PATH' -r
complete -c effe-loader -l aws-token-file -d 'The token that such clients have as access key id; needed off loopback. Signatures are not checked' -r -F
complete -c effe-loader -l aws-retry-delay -d 'How long an event that nobody waits for rests before it is tried again, and twice as long before the last try' -r
complete -c effe-loader -l info -d 'Print the lambda\'s Info as JSON and exit; runs neither Init nor Start'
complete -c effe-loader -l check -d 'Try the lambda: Init, one Start, one Stop; then exit'
complete -c effe-loader -l probes -d 'Answer probes on the main port: /health/liveness, /health/readiness, /_/health, /_/ready'
complete -c effe-loader -l strict-ownership -d 'Load only what this user and root alone may write, file and all directories above it'
complete -c effe-loader -l strict-plugin -d 'Look for every breach of the contract that a plugin in C may commit, and log it; costs CPU and memory'
complete -c effe-loader -l aws-stream -d 'As a function of AWS Lambda\'s: send answers while they are written, for a URL with RESPONSE_STREAM'
complete -c effe-loader -s h -l help -d 'Print this help'
complete -c effe-loader -l help-all -d 'Print all flags'
complete -c effe-loader -s V -l version -d 'Print version, commit, ABI and features'
