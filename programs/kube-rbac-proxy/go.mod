module inferencebox.local/programs/kube-rbac-proxy

go 1.24.0

require github.com/brancz/kube-rbac-proxy v0.18.0 // indirect
