//! Databases for tests: each test has its own, which is dropped with it.

use tokio_postgres::Client;
use tokio_postgres::NoTls;
use url::Url;
use uuid::Uuid;

/// A new, empty database. Dropping it drops the database, whoever is still connected.
pub(crate) struct Database {
    admin: String,
    name: String,
    url: Url,
}

impl Database {
    /// A database on the server that all tests share.
    pub(crate) async fn create() -> Self {
        let admin = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: start the tests by tests/run, or set DATABASE_URL");
        let name = format!("tidings_test_{}", Uuid::new_v4().simple());
        connect(&admin)
            .await
            .batch_execute(&format!("create database {name} template template0"))
            .await
            .unwrap();
        let mut url = Url::parse(&admin).unwrap();
        url.set_path(&name);
        Self { admin, name, url }
    }

    /// For its owner, who may do everything.
    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// For somebody who has taken on `role`.
    pub(crate) fn url_as(&self, role: &str) -> String {
        let mut url = self.url.clone();
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs.iter().filter(|(key, _)| key != "options"));
        let mark = if url.query() == Some("") { "" } else { "&" };
        let query = url.query().unwrap_or_default();
        let query = format!("{query}{mark}options=-c%20role%3D{role}");
        url.set_query(Some(&query));
        url.to_string()
    }

    /// A plain connection, for what the store does not do.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    /// One number out of the database.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.client()
            .await
            .query_one(sql, &[])
            .await
            .unwrap()
            .get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("drop database if exists {} with (force)", self.name);
        let admin = self.admin.clone();
        // A runtime of its own: the test's may be the one that unwinds.
        let drop_it = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { connect(&admin).await.batch_execute(&sql).await })
        };
        let _ = std::thread::spawn(drop_it).join();
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
