-- The roles and their passwords, as the secrets say: run at every start, so
-- that changing a secret changes the password.
-- A failing statement must not write a password to the log.
SET log_min_error_statement = panic;
\set owner_password `cat /run/secrets/owner-password`
\set app_password `cat /run/secrets/app-password`

SELECT 'CREATE ROLE tally_owner' WHERE NOT EXISTS
    (SELECT FROM pg_roles WHERE rolname = 'tally_owner') \gexec
SELECT 'CREATE ROLE tally_app' WHERE NOT EXISTS
    (SELECT FROM pg_roles WHERE rolname = 'tally_app') \gexec
ALTER ROLE tally_owner LOGIN PASSWORD :'owner_password';
ALTER ROLE tally_app LOGIN PASSWORD :'app_password';

SELECT 'CREATE DATABASE tally OWNER tally_owner' WHERE NOT EXISTS
    (SELECT FROM pg_database WHERE datname = 'tally') \gexec
-- The application connects; what it may touch is granted by the migrations.
REVOKE ALL ON DATABASE tally FROM PUBLIC;
GRANT CONNECT ON DATABASE tally TO tally_app;
