//! The password where the URL has none: `PGPASSWORD`, else libpq's password file, so that none need
//! stand on a command line. Source: PostgreSQL, "The Password File".

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// The password for this connection, if there is one.
pub(super) fn password(config: &Config) -> Option<String> {
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Some(password);
    }
    let path = match std::env::var_os("PGPASSFILE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"),
    };
    let text = std::fs::read_to_string(path).ok()?;
    let host = match config.get_hosts().first()? {
        Host::Tcp(host) => host.as_str(),
        #[cfg(unix)]
        Host::Unix(_) => "localhost",
    };
    let port = config.get_ports().first().unwrap_or(&5432).to_string();
    let wanted = [
        host,
        &port,
        config.get_dbname().unwrap_or_default(),
        config.get_user().unwrap_or_default(),
    ];
    text.lines().find_map(|line| of_line(line, wanted))
}

/// The password of a line, if the line is about that host, port, database and user.
fn of_line(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        // Whatever follows the fourth colon is the password.
        if letter == ':' && fields.len() < 5 {
            fields.push(String::new());
            continue;
        }
        let field = fields.last_mut()?;
        match letter {
            '\\' => field.extend(letters.next()),
            other => field.push(other),
        }
    }
    let password = fields.pop().filter(|_| fields.len() == 4)?;
    let matches = fields
        .iter()
        .zip(wanted)
        .all(|(field, wanted)| field == "*" || field == wanted);
    matches.then_some(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_for_its_host_port_database_and_user() {
        let wanted = ["db.example.com", "5432", "notifications", "backstage"];
        let password = |line| of_line(line, wanted);
        assert_eq!(
            password("db.example.com:5432:notifications:backstage:a").as_deref(),
            Some("a")
        );
        assert_eq!(
            password(r"*:*:*:backstage:a\:b:c\\").as_deref(),
            Some(r"a:b:c\")
        );
        assert_eq!(password("*:5433:*:*:a"), None);
        assert_eq!(password("#*:*:*:*:a"), None);
        assert_eq!(password("*:*:*:a"), None);
        assert_eq!(password(""), None);
    }
}
