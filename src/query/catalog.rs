//! The project's catalogs as DataFusion sees them: looked up by name when a query names a table, never listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use iceberg::{NamespaceIdent, TableIdent};
use tokio::sync::OnceCell;

use super::read::external;
use super::table::{Files, IcebergTable};
use crate::catalog::{self, Catalog};
use crate::config;

/// The catalogs of a project by name, each opened when it is first needed: a catalog that is down stops only the
/// queries that name it.
#[derive(Clone, Debug, Default)]
pub struct Catalogs {
    by_name: BTreeMap<String, Arc<Lazy>>,
}

#[derive(Debug)]
struct Lazy {
    config: Option<config::Catalog>,
    open: OnceCell<Arc<dyn Catalog>>,
}

impl Catalogs {
    pub fn of_project(project: &config::Project) -> Self {
        let lazy = |config: &config::Catalog| Arc::new(Lazy { config: Some(config.clone()), open: OnceCell::new() });
        Catalogs { by_name: project.catalogs.iter().map(|(name, config)| (name.clone(), lazy(config))).collect() }
    }

    /// Adds a catalog that is already open, in place of one of the same name.
    #[must_use]
    pub fn with(mut self, catalog: Arc<dyn Catalog>) -> Self {
        let name = catalog.name().to_owned();
        self.by_name.insert(name, Arc::new(Lazy { config: None, open: OnceCell::new_with(Some(catalog)) }));
        self
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// # Errors
    /// No such catalog in the project, or it cannot be opened.
    pub async fn get(&self, name: &str) -> catalog::Result<Arc<dyn Catalog>> {
        match self.by_name.get(name) {
            Some(lazy) => lazy.get().await,
            None => {
                let known = self.by_name.keys().cloned().collect::<Vec<_>>().join(", ");
                Err(catalog::Error::NotFound(format!("catalog {name}; the project has: {known}")))
            }
        }
    }
}

impl Lazy {
    async fn get(&self) -> catalog::Result<Arc<dyn Catalog>> {
        let open = || async {
            match &self.config {
                Some(config) => catalog::open(config).await,
                None => Err(catalog::Error::NotFound("catalog without a configuration".to_owned())),
            }
        };
        self.open.get_or_try_init(open).await.cloned()
    }
}

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.by_name.keys().cloned().collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        Some(Arc::new(Namespaces { catalog: self.by_name.get(name)?.clone() }))
    }
}

#[derive(Debug)]
struct Namespaces {
    catalog: Arc<Lazy>,
}

impl CatalogProvider for Namespaces {
    fn schema_names(&self) -> Vec<String> {
        vec![]
    }

    /// Any name may be a namespace; whether it is one is asked when a table of it is. Levels are joined by dots, so
    /// that `"sales.eu".orders` is the table `orders` of the namespace `eu` in `sales`.
    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let levels = name.split('.').map(str::to_owned).collect();
        let namespace = NamespaceIdent::from_vec(levels).ok()?;
        Some(Arc::new(Tables { catalog: self.catalog.clone(), namespace }))
    }
}

#[derive(Debug)]
struct Tables {
    catalog: Arc<Lazy>,
    namespace: NamespaceIdent,
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        vec![]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let catalog = self.catalog.get().await.map_err(external)?;
        let ident = TableIdent::new(self.namespace.clone(), name.to_owned());
        match catalog.load(&ident).await {
            Ok(table) => Ok(Some(Arc::new(IcebergTable::new(table, Files::Current)?))),
            Err(catalog::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(external(error)),
        }
    }

    fn table_exist(&self, _: &str) -> bool {
        true
    }
}
