import sqlite3, sys

extension, uri, query = sys.argv[1:]
loader = sqlite3.connect(':memory:')
loader.enable_load_extension(True)
loader.load_extension(extension)
loader.close()

db = sqlite3.connect(uri, uri=True)
print(db.execute(query).fetchone()[0])
db.close()
