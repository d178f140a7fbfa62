-- A pilot's password is the access token that its manager gave it: a JWT, HS256, signed with the
-- manager's own key. The key is read at each login, so that a changed one needs no restart.
--
-- Option: copilot_key_file, the manager's access.key or a copy of it.

local jwt = require "util.jwt";
local new_sasl = require "util.sasl".new;

local AUDIENCE = "copilot-pilot";
local LEAST_KEY = 32; -- bytes; what the manager makes

local key_file = assert(module:get_option_string("copilot_key_file"),
	"set copilot_key_file to a copy of the manager's access.key that Prosody can read");

local function read_key()
	local file, problem = io.open(key_file, "rb");
	if not file then return nil, problem; end
	local key = file:read("a");
	file:close();
	if not key or #key < LEAST_KEY then
		return nil, key_file .. " is shorter than " .. LEAST_KEY .. " bytes";
	end
	return key;
end

local function complain(problem)
	module:log("error", "No pilot can log in: %s. Copy the manager's access.key there, readable for Prosody",
		problem);
end

-- util.jwt checks algorithm and signature (in constant time), and nothing else. It raises an error
-- for some broken tokens.
local function claims_of(token)
	local key, problem = read_key();
	if not key then
		complain(problem);
		return nil;
	end
	local ran, good, claims = pcall(jwt.verify, key, token);
	return ran and good == true and type(claims) == "table" and claims or nil;
end

local function is_token_of(pilot, token)
	local claims = claims_of(token);
	return claims ~= nil
		and claims.aud == AUDIENCE
		and claims.sub == pilot
		and type(claims.exp) == "number" and claims.exp > os.time();
end

local provider = { name = "copilot" };

function provider.test_password(pilot, token)
	return is_token_of(pilot, token);
end

-- No list of pilots is kept here: those that are connected are the ones that exist.
function provider.user_exists()
	return false;
end

function provider.get_sasl_handler()
	return new_sasl(module.host, {
		plain_test = function (_, pilot, token)
			return is_token_of(pilot, token), true;
		end;
	});
end

local key, problem = read_key();
if not key then complain(problem); end

module:add_item("auth-provider", provider);
