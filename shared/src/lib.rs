//! Types that the authorization server and the resource server both use, and their database. Depends on neither
//! side.

pub mod access_token;
pub mod audit;
pub mod catalogue;
pub mod clock;
pub mod data_dir;
pub mod db;
pub mod document;
pub mod file;
pub mod id;
pub mod issuer;
pub mod json;
pub mod network;
pub mod outbound;
pub mod owner;
pub mod percent;
pub mod rate;
pub mod redirect_uri;
pub mod request;
pub mod resource_uri;
pub mod route;
pub mod schema;
pub mod scope;
pub mod secret;
pub mod share;
pub mod shell;
pub mod terminal;
pub mod timekeeping;
pub mod tls;
pub mod token_status;
pub mod work;

pub use access_token::{AccessToken, Jti};
pub use catalogue::Catalogue;
pub use clock::{Clock, Timestamp};
pub use db::{Db, Fault, Tx};
pub use document::Document;
pub use id::{ClientId, GrantId, UserId};
pub use issuer::Issuer;
pub use network::Network;
pub use redirect_uri::RedirectUri;
pub use request::Request;
pub use resource_uri::ResourceUri;
pub use scope::Scope;
pub use secret::{Digest, Secret};
pub use token_status::TokenStatus;
