import type { Database } from '../../platform/database/database.ts'

/**
 * Copies the current rows of a schema within the same database, so that a test can take one service back in
 * time, as restoring a backup would.
 */
export async function keepSchema(database: Database, schema: string): Promise<void> {
  await database.script(`
    create schema kept_${schema};
    do $$ declare name text; begin
      for name in ${tablesOf(schema)} loop
        execute format('create table kept_${schema}.%I as table ${schema}.%I', name, name);
      end loop;
    end $$;
    create table kept_${schema}.kept_sequence as
      select sequencename, last_value from pg_sequences where schemaname = '${schema}'`)
}

export async function putSchemaBack(database: Database, schema: string): Promise<void> {
  // Turns foreign keys off while the tables are filled, so that their order does not matter.
  await database.script(`
    set session_replication_role = replica;
    do $$ declare name text; begin
      for name in ${tablesOf(schema)} loop
        execute format('truncate ${schema}.%I cascade', name);
      end loop;
      for name in ${tablesOf(schema)} loop
        execute format(
          'insert into ${schema}.%I overriding system value select * from kept_${schema}.%I',
          name, name);
      end loop;
    end $$;
    select setval(format('${schema}.%I', sequencename)::regclass, coalesce(last_value, 1), last_value is not null)
    from kept_${schema}.kept_sequence;
    set session_replication_role = origin`)
}

const tablesOf = (schema: string) =>
  `select tablename from pg_tables where schemaname = '${schema}'`
