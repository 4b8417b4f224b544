//! Connections to replicas: HTTP/1.1 with reuse, TCP_NODELAY, TLS by rustls where the URL says `https`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;

type Pooled = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// One replica's address, key and connections.
#[derive(Clone)]
pub struct Upstream {
    client: Pooled,
    base: String,
    authority: HeaderValue,
    authorization: Option<HeaderValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("`url`: `{0}` is not an http:// or https:// address of a replica")]
    Url(String),
    #[error("`ca_file`: {0}")]
    Ca(String),
    #[error("`api_key`: has characters that can't stand in a header")]
    Key,
}

/// llama.cpp closes an idle connection after five seconds; leave before it does.
const IDLE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(5);

impl Upstream {
    /// # Errors
    /// [`UpstreamError`] names the field that is wrong.
    pub fn new(
        url: &str,
        api_key: Option<&str>,
        ca_file: Option<&str>,
    ) -> Result<Self, UpstreamError> {
        let bad = || UpstreamError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(bad());
        }
        let authority = uri.authority().ok_or_else(bad)?;
        let authorization = api_key
            .map(|key| {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| UpstreamError::Key)?;
                value.set_sensitive(true);
                Ok(value)
            })
            .transpose()?;
        Ok(Self {
            client: client(uri.scheme_str() == Some("https"), ca_file)?,
            base: url.trim_end_matches('/').to_owned(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| bad())?,
            authorization,
        })
    }

    /// A request to this replica, ready to be sent.
    ///
    /// # Errors
    /// When the path or a header of the adapter is no valid HTTP.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(key) = &self.authorization {
            request = request.header(header::AUTHORIZATION, key);
        }
        request.body(Full::new(body))
    }

    /// Sends; dropping the future (or the answer's body) closes the connection.
    pub fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> hyper_util::client::legacy::ResponseFuture {
        self.client.request(request)
    }
}

fn client(tls: bool, ca_file: Option<&str>) -> Result<Pooled, UpstreamError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    let roots = if tls {
        roots(ca_file)?
    } else {
        RootCertStore::empty()
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| UpstreamError::Ca(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(1024)
        .build(https))
}

fn roots(ca_file: Option<&str>) -> Result<RootCertStore, UpstreamError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca_file {
        let pem = std::fs::read(path)
            .map_err(|e| UpstreamError::Ca(format!("`{path}` can't be read: {e}")))?;
        for cert in rustls_pemfile::certs(&mut pem.as_slice()) {
            let cert = cert.map_err(|e| UpstreamError::Ca(format!("`{path}`: {e}")))?;
            store
                .add(cert)
                .map_err(|e| UpstreamError::Ca(format!("`{path}`: {e}")))?;
        }
        if store.is_empty() {
            return Err(UpstreamError::Ca(format!("`{path}` holds no certificate")));
        }
        return Ok(store);
    }
    for cert in rustls_native_certs::load_native_certs().certs {
        // One certificate of the system that rustls does not know must not take the others with it.
        let _ = store.add(cert);
    }
    Ok(store)
}
