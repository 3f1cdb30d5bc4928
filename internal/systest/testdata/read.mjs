import { DatabaseSync } from 'node:sqlite';

const [extension, uri, query] = process.argv.slice(2);
const loader = new DatabaseSync(':memory:', { allowExtension: true });
loader.loadExtension(extension);
loader.close();

const db = new DatabaseSync(uri, { readOnly: true });
console.log(Object.values(db.prepare(query).get())[0]);
db.close();
