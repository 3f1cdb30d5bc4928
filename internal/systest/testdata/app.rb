require 'sqlite3'

extension, uri = ARGV
loader = SQLite3::Database.new(':memory:')
loader.enable_load_extension(true)
loader.load_extension(extension)
loader.close

flags = SQLite3::Constants::Open
db = SQLite3::Database.new(uri, flags: flags::READWRITE | flags::CREATE | flags::URI)
db.execute('CREATE TABLE t(v)')
db.execute("INSERT INTO t VALUES('first')")
puts db.get_first_value('SELECT walferry_wait(walferry_token(), 30000)')
db.execute("INSERT INTO t VALUES('last')")
db.close
