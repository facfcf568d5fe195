#!/usr/bin/env bash
# A partner, a customer with a quota, its usage, a reservation and a switch, with curl alone. Needs an instance that runs, and a client of root:
#
#   apportion up && apportion serve                      (in another terminal; it says where its HTTP is)
#   eval "$(apportion tenants client create root --json | python3 -c 'import json, sys; c = json.load(sys.stdin)
#   print(f"export CLIENT_ID={c[\"client_id\"]} CLIENT_SECRET={c[\"client_secret\"]}")')"
#   examples/over-http.sh http://127.0.0.1:8080
set -euo pipefail

url=${1:-http://127.0.0.1:8080}/api/2
own=${1:-http://127.0.0.1:8080}/api/v1
mode=pck_per_workload

pick() { python3 -c "import json, sys; found = json.load(sys.stdin)$1
print(found if isinstance(found, str) else json.dumps(found))"; }

# 1. A token: it is good for an hour.
token=$(curl -sSf -u "$CLIENT_ID:$CLIENT_SECRET" -d grant_type=client_credentials "$url/idp/token" | pick '["access_token"]')
ask() { curl -sSf -H "Authorization: Bearer $token" "$@"; }

# 2. A partner, which sells, and a customer of it. With the key, a repeat after a broken connection makes no second one.
key="$(date +%s)-$$"
partner=$(ask -H "Idempotency-Key: partner-$key" "$url/tenants" \
  -d "{\"name\": \"Partner $key\", \"kind\": \"partner\", \"parent_id\": \"root\"}" | pick '["id"]')
customer=$(ask -H "Idempotency-Key: customer-$key" "$url/tenants" \
  -d "{\"name\": \"Customer\", \"kind\": \"customer\", \"parent_id\": \"$partner\"}" | pick '["id"]')

# 3. What the parent has can be turned on below it: first for the partner, then for the customer.
items=$(ask "$url/tenants/root/offering_items/available_for_child?edition=$mode" | pick '["items"]')
ask -X PUT "$url/tenants/$partner/offering_items" -d "{\"offering_items\": $items}" >/dev/null
workstations='{"name": "pw_base_workstations", "status": 1, "quota": {"value": 10, "overage": 0}}'
ask -X PUT "$url/tenants/$customer/offering_items" -d "{\"offering_items\": [$workstations]}" | pick '["items"][0]["quota"]'

# 4. Who changes a quota names the version it has seen; who comes second is told so (409, code 1001).
stale='{"name": "pw_base_workstations", "status": 1, "quota": {"value": 20, "overage": 0, "version": 0}}'
curl -sS -H "Authorization: Bearer $token" -X PUT "$url/tenants/$customer/offering_items" \
  -d "{\"offering_items\": [$stale]}" | pick '["error"]["message"]'

# 5. What is used, by the customer and by everybody below the partner.
for tenant in "$customer" "$partner"; do
  ask "$url/tenants/$tenant/usages?usage_names=workstations" | pick '["items"][0]["value"]'
done

# 6. An agent asks before it takes: the units are its own for ten minutes, or it is told who has none left.
reserved=$(ask "$own/tenants/$customer/reservations" -d '{"items": {"pw_base_workstations": 8}, "ttl_seconds": 600}')
pick '["state"]' <<<"$reserved"
ask "$own/tenants/$customer/reservations" -d '{"items": {"pw_base_workstations": 8}}' | pick '["denials"][0]["message"]'
ask -X DELETE "$own/tenants/$customer/reservations/$(pick '["reservation_id"]' <<<"$reserved")"
ask "$own/tenants/$customer/explain?offering_item=pw_base_workstations" | pick '["levels"][0]["available"]'

# 7. To another billing mode: the partner needs its items first. The preview names the plan that the switch then applies.
other=pck_per_gigabyte
items=$(ask "$url/tenants/root/offering_items/available_for_child?edition=$other" | pick '["items"]')
ask -X PUT "$url/tenants/$partner/offering_items" -d "{\"offering_items\": $items}" >/dev/null
plan=$(ask "$url/tenants/$customer/edition?target_edition=$other" | pick '["plan_hash"]')
ask -X PUT "$url/tenants/$customer/edition" -d "{\"target_edition\": \"$other\", \"plan_hash\": \"$plan\"}" | pick '["state"]'

# 8. A client for the partner itself: it sees its own tenant and those below it, and nothing else.
ask "$url/clients" -d "{\"tenant_id\": \"$partner\", \"type\": \"api_client\"}" | pick '["client_id"]'
