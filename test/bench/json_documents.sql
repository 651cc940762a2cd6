-- json_documents.sql: the pairs of documents that json.sql measures.

CREATE TABLE bench_document (name text PRIMARY KEY, a jsonb NOT NULL, b jsonb NOT NULL);
COMMENT ON TABLE bench_document IS 'a document before and after a change';

-- a row of 50 columns; 2 changed
INSERT INTO bench_document
SELECT 'flat', d, d || '{"column_07": "another", "column_31": 12.5}'
FROM (SELECT jsonb_object_agg('column_' || lpad(i::text, 2, '0'),
							  CASE i % 4 WHEN 0 THEN to_jsonb(i * 1.25) WHEN 1 THEN to_jsonb('text of column ' || i)
										 WHEN 2 THEN to_jsonb(i % 3 = 0) ELSE to_jsonb(md5(i::text)) END) AS d
	  FROM generate_series(1, 50) i) s;

-- 10 sections with 20 leaves each, some in lists; 5 changed
INSERT INTO bench_document
SELECT 'nested', d, jsonb_set(jsonb_set(jsonb_set(jsonb_set(jsonb_set(d,
	'{section2,limits,4}', '-1'), '{section3,title}', '"other"'), '{section5,fields,field3}', '0.5'),
	'{section8,limits,0}', '77'), '{section9,fields,field7}', '"x"')
FROM (SELECT jsonb_object_agg('section' || s, jsonb_build_object('title', 'Section ' || s, 'open', s % 2 = 0,
		'limits', (SELECT jsonb_agg(s * 10 + i) FROM generate_series(1, 8) i),
		'fields', (SELECT jsonb_object_agg('field' || i, CASE i % 2 WHEN 0 THEN to_jsonb(i * 1.5) ELSE to_jsonb('value ' || i) END)
				   FROM generate_series(1, 10) i))) AS d
	  FROM generate_series(0, 9) s) n;

-- 40 sections of 25 fields, about 40 kB; 1 changed
INSERT INTO bench_document
SELECT 'large', d, jsonb_set(d, '{section20,field12}', '4711')
FROM (SELECT jsonb_object_agg('section' || lpad(s::text, 2, '0'),
		(SELECT jsonb_object_agg('field' || lpad(f::text, 2, '0'),
								 CASE f % 3 WHEN 0 THEN to_jsonb(s * 1000.5 + f) ELSE to_jsonb(md5(s || '.' || f)) END)
		 FROM generate_series(0, 24) f)) AS d
	  FROM generate_series(0, 39) s) n;
SELECT bench_assert('bytes of the large document, in units of 10,000', round(length(d.a::text) / 1e4)::bigint, 4)
FROM bench_document d WHERE name = 'large';

-- 1,000 objects that differ in each member; 1 more in front
INSERT INTO bench_document
SELECT 'array', d, '[{"id": 0, "name": "new", "qty": -1, "price": 0.01}]' || d
FROM (SELECT jsonb_agg(jsonb_build_object('id', i, 'name', 'Part ' || i, 'qty', i * 3, 'price', i / 4.0)) AS d
	  FROM generate_series(1, 1000) i) n;

-- one row per document; empty where there is no node
CREATE TABLE bench_node (
	name		text PRIMARY KEY,
	us			numeric,
	operations	int,
	parse		numeric,
	apply		numeric,
	apply_text	numeric
);
COMMENT ON TABLE bench_node IS 'fast-json-patch in node: compare, its operations, parsing both, applying 1 operation, that from text to text';
