%% What ejabberd 23.01 needs for the pilots of Cloud Co-Pilot and does not have itself:
%%
%% - A pilot's password is the access token that its manager gave it. ejabberd checks signature and
%%   end of the JWT; its own check of the claims wants a whole address (user@domain) in one of them,
%%   and does not look at the audience. Here `sub` is the pilot and `aud` must be ours.
%% - Pilots reach the managers and nobody else: no other pilot, no other domain, nothing of the
%%   server but a ping.
%% - A manager gets IQs, with nothing in them but one element with text. A namespace that is declared
%%   once and used by a thousand elements may be written out for each of them on the way to the
%%   manager, whose stream ends at 1 MiB, and with it the conversations of all.
%% - Each stanza costs this server and the manager something, however short it is: whoever says more
%%   than one a PERIOD, after a burst, is heard later.
%%
%% Option: components, the names of the managers' components.

-module(mod_copilot).

-behaviour(gen_mod).

-export([start/2, stop/1, reload/3, depends/2, mod_opt_type/1, mod_options/1, mod_doc/0]).
-export([check_claims/5, bound/3, filter/1]).

-define(AUDIENCE, <<"copilot-pilot">>).
-define(MOST_ELEMENTS, 8). % of one stanza; a login needs three
-define(PERIOD, 4). % milliseconds
-define(BURST, 4000). % milliseconds of silence that may be made up for

start(Host, _Options) ->
    %% before ejabberd's own check of the claims, which is at 100
    ejabberd_hooks:add(check_decoded_jwt, Host, ?MODULE, check_claims, 50),
    ejabberd_hooks:add(c2s_handle_recv, Host, ?MODULE, bound, 10),
    ejabberd_hooks:add(user_send_packet, Host, ?MODULE, filter, 10),
    ok.

stop(Host) ->
    ejabberd_hooks:delete(check_decoded_jwt, Host, ?MODULE, check_claims, 50),
    ejabberd_hooks:delete(c2s_handle_recv, Host, ?MODULE, bound, 10),
    ejabberd_hooks:delete(user_send_packet, Host, ?MODULE, filter, 10),
    ok.

reload(_Host, _New, _Old) -> ok.

depends(_Host, _Options) -> [].

mod_opt_type(components) -> econf:list(econf:domain()).

mod_options(_Host) -> [{components, []}].

mod_doc() -> #{desc => <<"Pilots of Cloud Co-Pilot: their tokens, and whom they may address">>}.

%% Signature and end have been checked.
check_claims(true, #{<<"sub">> := Pilot, <<"aud">> := ?AUDIENCE}, _Signature, _Host, Pilot) ->
    {stop, true};
check_claims(_, _, _, _, _) ->
    {stop, false}.

%% Also of what is no stanza at all, which ejabberd would send back as it writes it.
bound(State, Element, _) ->
    case elements(Element, 0) > ?MOST_ELEMENTS of
        true -> {stop, xmpp_stream_in:send(State, xmpp:serr_policy_violation())};
        false -> keep_pace(State)
    end.

keep_pace(State) ->
    Now = erlang:monotonic_time(millisecond),
    Due = max(maps:get(copilot_due, State, Now - ?BURST), Now - ?BURST) + ?PERIOD,
    timer:sleep(max(0, Due - Now)),
    State#{copilot_due => Due}.

elements(_, Count) when Count > ?MOST_ELEMENTS -> Count;
elements({xmlel, _, _, Children}, Count) -> lists:foldl(fun elements/2, Count + 1, Children);
elements(_, Count) -> Count.

filter({Packet, State} = Accepted) ->
    case verdict(Packet, State) of
        pass -> Accepted;
        answer -> {xmpp:set_els(Packet, []), State};
        quiet -> {stop, {drop, State}};
        %% without what was in it: ejabberd would send that back
        Error -> {stop, {drop, xmpp_stream_in:send_error(State, xmpp:set_els(Packet, []), Error)}}
    end.

verdict(Packet, #{lserver := Host, lang := Language} = State) ->
    {_, To, _} = jid:tolower(xmpp:get_to(Packet)),
    case lists:member(To, gen_mod:get_module_opt(Host, ?MODULE, components)) of
        true -> to_manager(Packet, To, Language);
        false -> of_the_rest(Packet, State)
    end.

%% Of an answer only its id and type are of interest.
to_manager(Packet, To, Language) ->
    case {element(1, Packet), xmpp:get_type(Packet), xmpp:get_els(Packet)} of
        {iq, result, _} -> answer;
        {iq, error, _} -> answer;
        {iq, _, [Child]} -> if_plain(Child, To, Language);
        {presence, _, _} -> quiet;
        _ -> not_plain(Language)
    end.

if_plain({xmlel, _, Attributes, Children}, To, Language) ->
    Elements = [Child || {xmlel, _, _, _} = Child <- Children],
    Prefixed = [Name || {Name, _} <- Attributes, binary:match(Name, <<":">>) =/= nomatch],
    case {Elements, Prefixed} of
        {[], []} -> if_connected(To, Language);
        _ -> not_plain(Language)
    end;
if_plain(_, _, Language) -> not_plain(Language).

not_plain(Language) ->
    xmpp:err_not_allowed(<<"A manager takes IQs with one element with text">>, Language).

%% ejabberd would call it forbidden, as if it were somebody else's domain.
if_connected(Component, Language) ->
    case ejabberd_router:is_my_route(Component) of
        true -> pass;
        false -> xmpp:err_remote_server_timeout(<<"The manager is not connected">>, Language)
    end.

of_the_rest(Packet, #{lang := Language} = State) ->
    case {is_server_or_self(Packet, State), element(1, Packet)} of
        {true, presence} -> quiet; % clients announce themselves; nobody is here to hear it
        {true, iq} -> own_need(Packet, Language);
        _ -> not_allowed(Language)
    end.

own_need(Packet, Language) ->
    case is_own_need(Packet) of
        true -> pass;
        false -> not_allowed(Language)
    end.

not_allowed(Language) ->
    xmpp:err_not_allowed(<<"Pilots may address only their manager">>, Language).

%% ejabberd gives a stanza without `to` the sender's own address.
is_server_or_self(Packet, #{lserver := Host, user := User}) ->
    case jid:tolower(xmpp:get_to(Packet)) of
        {<<>>, Host, <<>>} -> true;
        {User, Host, <<>>} -> true;
        _ -> false
    end.

is_own_need(Packet) ->
    case {xmpp:get_type(Packet), xmpp:get_els(Packet)} of
        {result, _} -> true; % the answer to the server's ping
        {error, _} -> true;
        {_, [Child]} -> is_own_need_ns(xmpp:get_ns(Child));
        _ -> false
    end.

is_own_need_ns(<<"urn:xmpp:ping">>) -> true;
is_own_need_ns(<<"urn:ietf:params:xml:ns:xmpp-session">>) -> true; % older clients, after binding
is_own_need_ns(_) -> false.
