module inferencebox.local/programs/kserve

go 1.24.1

require github.com/kserve/kserve v0.15.2 // indirect
