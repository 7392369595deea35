-- Lists the statements that mark the database, the role and the table in use with a comment, and those that retire one
-- that was in use under another name before: a role may no longer log in; data stays. The comment names the counterpart,
-- so that those of other exchanges on the server are left alone. A comment of anybody else is kept.
WITH present(kind, name, comment) AS (
  SELECT 'DATABASE', datname::text, shobj_description(oid, 'pg_database') FROM pg_database
  UNION ALL
  SELECT 'ROLE', rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles
  UNION ALL
  SELECT 'TABLE', relname::text, obj_description(oid, 'pg_class') FROM pg_class
  WHERE relkind = 'r' AND pg_table_is_visible(oid)
), wanted(kind, name, mark) AS (
  SELECT kind, name, 'labredes.pbx: in use with ' || counterpart
  FROM (VALUES ('DATABASE', current_database()::text, %(owner)s), ('ROLE', %(owner)s, current_database()::text),
        ('ROLE', %(reader)s, 'readers of ' || current_database()),
        ('TABLE', %(table)s, current_database()::text)) AS v(kind, name, counterpart)
), former AS (
  SELECT kind, present.name FROM present JOIN wanted USING (kind) WHERE comment = mark AND present.name <> wanted.name
), steps(step, kind, name, statement, former) AS (
  SELECT 1, kind, name, format('COMMENT ON %%s %%I IS %%L', kind, name, mark), NULL
  FROM wanted LEFT JOIN present USING (kind, name)
  WHERE (comment IS NULL OR (comment LIKE 'labredes.pbx: %%' AND comment <> mark
      -- Several databases may have one reader.
      AND NOT (comment LIKE '%%: in use with readers of %%' AND mark LIKE '%%: in use with readers of %%')))
    AND (kind <> 'ROLE' OR name IN (SELECT name FROM present WHERE kind = 'ROLE'))
  UNION ALL
  SELECT 2, kind, name, format('ALTER ROLE %%I NOLOGIN PASSWORD NULL', name), NULL FROM former WHERE kind = 'ROLE'
  UNION ALL
  SELECT 3, kind, name, format('COMMENT ON %%s %%I IS ''labredes.pbx: not in use since %%s''', kind, name, current_date),
    format('%%s %%s, which %%s', lower(kind), name, CASE kind WHEN 'ROLE' THEN 'may no longer log in' ELSE 'stays' END)
  FROM former
)
SELECT statement, former FROM steps ORDER BY step, kind, name
