-- Asterisell's tables of calls and of changed days, for SQLite: the names, types and keys are those of MariaDB.
-- The keys cluster the rows as InnoDB does, so that a day is one range of the table.

CREATE TABLE ar_cdr (
  calldate                           DATETIME       NOT NULL,
  id                                 INT            NOT NULL DEFAULT 0,
  is_service_cdr                     TINYINT        NOT NULL DEFAULT 0,
  to_calldate                        DATETIME       NULL,
  count_of_calls                     INT            NOT NULL DEFAULT 1,
  destination_type                   SMALLINT       NOT NULL DEFAULT 0,
  is_redirect                        TINYINT        NOT NULL DEFAULT 0,
  duration                           INT            NOT NULL DEFAULT 0,
  billsec                            INT            NOT NULL DEFAULT 0,
  ar_organization_unit_id            INT            NULL,
  cached_parent_id_hierarchy         VARBINARY(850) NULL,
  billable_ar_organization_unit_id   INT            NULL,
  bundle_ar_organization_unit_id     INT            NULL,
  income                             BIGINT         NULL,
  cost_saving                        BIGINT         NULL,
  ar_vendor_id                       INT            NULL,
  ar_communication_channel_type_id   INT            NULL,
  cost                               BIGINT         NULL,
  expected_cost                      BIGINT         NULL,
  ar_telephone_prefix_id             INT            NULL,
  cached_external_telephone_number   VARCHAR(1024)  NULL,
  external_telephone_number_with_applied_portability VARCHAR(1024) NULL,
  cached_masked_external_telephone_number VARCHAR(1024) NULL,
  error_destination_type             SMALLINT       NOT NULL DEFAULT 0,
  ar_problem_duplication_key         VARCHAR(255)   NULL,
  debug_cost_rate                    VARCHAR(512)   NULL,
  debug_income_rate                  VARCHAR(512)   NULL,
  imported_info                      VARCHAR(4096)  NULL,
  exported_internal_telephone_number VARCHAR(1024)  NOT NULL,
  exported_billable_customer_ar_party_id INT        NULL,
  from_source_cdr_id                 INT            NULL,
  PRIMARY KEY (calldate, id, is_service_cdr)
) WITHOUT ROWID;

CREATE TABLE ar_source_cdr (
  calldate              DATETIME       NOT NULL,
  id                    INT            NOT NULL,
  ar_cdr_provider_id    INT            NOT NULL,
  ar_physical_format_id INT            NOT NULL,
  content               VARCHAR(10000) NULL,
  is_hacked             TINYINT        NOT NULL DEFAULT 0,
  PRIMARY KEY (calldate, id)
) WITHOUT ROWID;

-- INTEGER PRIMARY KEY is what makes SQLite number the rows by itself.
CREATE TABLE ar_daily_status_job (
  id   INTEGER      PRIMARY KEY AUTOINCREMENT,
  name VARCHAR(200) NOT NULL UNIQUE
);

CREATE TABLE ar_daily_status_change (
  day                    DATE NOT NULL,
  ar_daily_status_job_id INT  NOT NULL,
  PRIMARY KEY (day, ar_daily_status_job_id)
) WITHOUT ROWID;
