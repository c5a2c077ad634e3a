//! The protocol of MariaDB and MySQL, as far as cdrvault speaks it: a login, statements, and rows as they arrive.
//!
//! # Why it is ours
//!
//! The drivers of Rust make an object of each row, and one of each value. Here a row is where its values lie in the packet that
//! arrived, and its bytes go into Arrow's builders from there: an export of 4 million rows takes 4.93 s instead of 5.64 s, and
//! 6.5 s of CPU instead of 8.0 s (`benches/NOTES.md`, "What helped"). The packets of a login and the ways to prove who one is come
//! from the `mysql_common` crate, encryption from `rustls`.
//!
//! # Where things are
//!
//! | module | holds |
//! |---|---|
//! | `packets` | framing: packets on a stream, those that come in parts, their limits |
//! | `login`, `tls` | the greeting, encryption, the proof of who we are |
//! | `connection` | commands, and how their answers begin and end |
//! | `rows` | rows of the text protocol and of the binary one, lengths |
//! | `failure`, `server` | what can go wrong; which server, as whom, and how encrypted |
//!
//! They need each other in one direction: `connection`, `login`, `tls`, `packets`, `failure`; `rows` needs `failure` alone.
//!
//! # What is spoken
//!
//! Integers are little-endian. "Length" is one of 1, 3, 4 or 9 bytes ([integers]); a "text" or "bytes" has its length before it.
//! The flag `DEPRECATE_EOF` is not asked for, so that columns and rows end with a packet of their own. MariaDB's documentation of the
//! same is [Client/Server Protocol], with what it adds for the [lengths], [results] and [prepared statements]; where the two servers
//! differ, the line says so. Not found there, but in what servers sent (`tests/fuzz/captured`) and in `mysql_common`: what an answer
//! of `client_ed25519` signs, and that an error may be out of order.
//!
//! | packet | form | source |
//! |---|---|---|
//! | any | length of the body (3 bytes), number (1 byte, of the next packet in either direction, from 0 at each command), body. One of 16,777,215 bytes goes on in the next packet | [packets] |
//! | greeting | protocol 10, version, thread, nonce in two pieces, capabilities, plugin | [greeting] |
//! | request for TLS | the first 32 bytes of an answer to the greeting; TLS begins after it | [TLS] |
//! | answer to the greeting | capabilities, longest packet, charset, user, proof, database, plugin | [answer] |
//! | another plugin | `fe`, name, `00`, nonce; `fe` alone asks for a password of servers before 4.1 and is refused | [switch] |
//! | more of a challenge | `01`, what the plugin says | [more] |
//! | `mysql_native_password` | 20 bytes: SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))) | [native] |
//! | `caching_sha2_password` | 32 bytes, SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce); then `03`: known, or `04`: the server wants the password itself | [caching] |
//! | `client_ed25519` (MariaDB) | 64 bytes: a signature of the nonce of 32 bytes | [ed25519] |
//! | `COM_QUERY` `03`, `COM_PING` `0e`, `COM_QUIT` `01` | the statement, nothing, nothing | [query], [ping], [quit] |
//! | `COM_STMT_PREPARE` `16` | the statement; answered by `00`, its id (4), columns (2), parameters (2), one unused, warnings (2); then a packet for each parameter and an end, and for each column and an end, where there are any | [prepare] |
//! | `COM_STMT_EXECUTE` `17` | id (4), no cursor (1), 1 (4); of values: a bit each for NULL, `01`, a type (2) each, the values | [execute] |
//! | `COM_STMT_CLOSE` `19` | id (4); not answered | [close] |
//! | done | `00`, rows that were found (length), and more that is not read | [OK] |
//! | error | `ff`, number (2), `#` and a state (5 bytes; not before the login), text in utf8mb4 | [ERR] |
//! | end of columns or rows | `fe` in a packet of less than 9 bytes | [EOF] |
//! | result | the count of columns (length), a packet for each, end, a packet for each row, end | [result] |
//! | column | six texts, `0c`, charset (2), length (4), type (1), flags (2), decimals (1), two unused. Only the type is used | [column], [results] |
//! | row of text | for each column a text, or `fb` for NULL | [text] |
//! | binary row | `00`, a bit for each column that is NULL after two without meaning, the others' values | [binary] |
//! | request for a file of ours | `fb`; refused | [infile] |
//!
//! The first packet of an answer may be an error that counts from where it likes: a server that ends a connection says so when it likes.
//!
//! # Limits
//!
//! All are in bytes, and are checked before the bytes have room.
//!
//! | | |
//! |---|---|
//! | a packet that is not a row | 1 MiB |
//! | a row | [`LONGEST_ROW`], or as told by [`Connection::take_rows_up_to`] |
//! | all rows of [`Connection::query`], with what it takes to keep them | the same, at least [`LONGEST_ROW`] |
//! | columns | 65,535 |
//!
//! Deadlines are the caller's: a future that is dropped leaves a connection that takes no further statement.
//!
//! # Errors
//!
//! Each function fails with a [`Failure`], which never has a password in it. After [`Failure::Server`] the connection can be used
//! again, unless the server said it out of turn, as one that closes the connection does; after that and after any other failure
//! it answers each statement with [`Failure::Protocol`]. Bytes of a server that are cut, too many, out of
//! order or of an unknown form are an error, never a value; `tests/fuzz` shows it.
//!
//! [Client/Server Protocol]: https://mariadb.com/kb/en/clientserver-protocol/
//! [lengths]: https://mariadb.com/kb/en/protocol-data-types/
//! [results]: https://mariadb.com/kb/en/resultset/
//! [prepared statements]: https://mariadb.com/kb/en/com_stmt_prepare/
//! [integers]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_dt_integers.html
//! [packets]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html
//! [greeting]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html
//! [TLS]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_ssl_request.html
//! [answer]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_response.html
//! [switch]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_auth_switch_request.html
//! [more]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_auth_more_data.html
//! [native]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods_native_password_authentication.html
//! [caching]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html
//! [ed25519]: https://mariadb.com/kb/en/authentication-plugin-ed25519/
//! [query]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query.html
//! [ping]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_ping.html
//! [quit]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_quit.html
//! [prepare]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_prepare.html
//! [execute]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_execute.html
//! [close]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_stmt_close.html
//! [OK]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_ok_packet.html
//! [ERR]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_err_packet.html
//! [EOF]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_eof_packet.html
//! [result]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset.html
//! [column]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_column_definition.html
//! [text]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html
//! [binary]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html
//! [infile]: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_local_infile_request.html

mod connection;
mod failure;
mod login;
mod packets;
mod rows;
mod server;
mod tls;

pub use self::connection::{Bound, Connection, LONGEST_ROW, Selected};
pub use self::failure::{Failure, Result};
pub use self::packets::Stream;
pub use self::rows::{BinaryRow, Row, push_with_length};
pub use self::server::{Place, Server, Tls};
