require 'sqlite3'

extension, uri, query = ARGV
loader = SQLite3::Database.new(':memory:')
loader.enable_load_extension(true)
loader.load_extension(extension)
loader.close

flags = SQLite3::Constants::Open
db = SQLite3::Database.new(uri, flags: flags::READONLY | flags::URI)
puts db.get_first_value(query)
db.close
