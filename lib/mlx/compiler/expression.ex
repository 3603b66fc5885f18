defmodule Mlx.Compiler.Expression do
  @moduledoc false

  # Walks an expression of Nx's once and lowers it. What runs on the device becomes
  # nodes of `Mlx.Graph`; what calls a function of the host becomes a step, and so does
  # a branch or a loop that contains one.
  #
  # A scope is the root, a branch of a `cond`, or the condition or body of a `while`. An
  # expression that two branches share belongs to the scope around them, and is computed
  # once at most: MLX computes only what is used. The calls among such expressions are
  # made where a branch first needs them, once at most, too.

  alias Mlx.{Debug, Dispatch, Downcast, Function, Graph, Lowering}
  alias Mlx.Compiler.{Loop, Scope, Step}
  alias Mlx.Lowering.{Control, Creation, Elementwise, Linalg, Narrow, Shape}
  alias Nx.Defn.{Composite, Expr, Tree}
  alias Nx.Tensor, as: T
  require Debug

  # `tensors` are those that the expression captured, and their nodes by identity.
  # `inside` are the scopes inside the current one that asked for the expression being
  # lowered, and `found` the calls that it makes only if asked for. A scope has those of
  # its expressions in `late`, and in `called` those that it makes.
  defstruct [:device, :hooks, :fuse, scopes: [], inside: [], found: []] ++
              [tensors: %{}, values: 0, fold?: false]

  @doc """
  The scope that computes `outputs`, a flat list of expressions, and the tensors that
  it captured, by their nodes' keys. Of the options it takes `:device`, `:hooks` and
  `:fuse`.
  """
  def trace(outputs, options) do
    state = struct!(__MODULE__, Map.take(options, [:device, :hooks, :fuse]))
    {scope, state} = enter(state, outputs, nil, &nodes(outputs, &1))
    {scope, Map.new(state.tensors, fn {tensor, node} -> {Graph.key(node), tensor} end)}
  end

  @doc """
  Whether the value of a node is known when an expression is compiled.
  """
  def known?(%Graph{id: {:tensor, _}}), do: true
  def known?(node), do: Graph.constant?(node)

  ## Scopes

  # Runs `fun` in a scope inside the current ones, and gives what it made. Without
  # parameters of its own it has those of the scope around it.
  defp enter(state, exprs, params, fun) do
    %{inside: inside, found: found} = state
    {outputs, state} = fun.(push(%{state | inside: [], found: []}, exprs, params))
    [%{steps: steps} | around] = state.scopes
    scope = %Scope{outputs: outputs, steps: Enum.reverse(steps)}
    scope = %{scope | inputs: Scope.free(scope, params || [], &outside?(&1, around))}
    {scope, %{state | scopes: around, inside: inside, found: found}}
  end

  # The same for one that sees nothing of those around it.
  defp enter_closed(%{scopes: around} = state, exprs, params, fun) do
    {scope, state} = enter(%{state | scopes: []}, exprs, params, fun)
    {scope, %{state | scopes: around}}
  end

  defp push(%{scopes: around} = state, exprs, params) do
    ids = Tree.scope_ids(List.to_tuple(exprs), ids(around))
    own = Map.new(params || [], &{&1.id, true})
    params = if params, do: List.to_tuple(params), else: params(around)
    scope = %{ids: ids, params: params, nodes: %{}, own: own, steps: []}
    scope = Map.merge(scope, %{late: %{}, called: %{}})
    %{state | scopes: [scope | around]}
  end

  defp params([scope | _]), do: scope.params
  defp params([]), do: nil

  defp ids([scope | _]), do: scope.ids
  defp ids([]), do: %{}

  defp outside?(%Graph{id: id} = node, around) do
    Graph.input?(node) or Graph.constant?(node) or Enum.any?(around, &is_map_key(&1.own, id))
  end

  ## Nodes

  defp nodes(exprs, state) do
    {nodes, state} = Enum.map_reduce(exprs, state, &node/2)
    {flatten(nodes), state}
  end

  # A node, or a tuple of nodes for an expression of several tensors.
  defp node(%T{data: %Expr{op: :metadata, args: [expr, _metadata]}}, state) do
    {nodes, state} = expr |> leaves() |> nodes(state)
    {like(expr, nodes), state}
  end

  defp node(%T{data: %Expr{id: id}} = expr, %{scopes: [scope | _]} = state) do
    case scope.nodes do
      %{^id => node} when not is_map_key(scope.late, id) -> {node, state}
      %{} -> node_of(expr, state)
    end
  end

  # The expression belongs to the outermost scope that knows it.
  defp node_of(%T{data: %Expr{id: id}} = expr, %{scopes: scopes, inside: inside} = state) do
    {inner, outer} = Enum.split(scopes, owner(scopes, id))
    state = %{state | scopes: outer, inside: inside ++ inner}
    {node, state} = find(expr, state)
    {inside, inner} = Enum.split(state.inside, length(inside))
    {node, %{state | scopes: inner ++ state.scopes, inside: inside}}
  end

  defp find(%T{data: %Expr{id: id}} = expr, %{scopes: [scope | _]} = state) do
    case scope.nodes do
      %{^id => node} ->
        {node, Enum.reduce(Map.get(scope.late, id, []), state, &call(&2, &1))}

      %{} ->
        %{found: found} = state
        {node, state} = lower(expr, %{state | found: []})
        [scope | around] = state.scopes
        own = node |> flatten() |> Enum.reduce(scope.own, &Map.put(&2, &1.id, true))
        scope = %{scope | nodes: Map.put(scope.nodes, id, node), own: own}

        scope =
          if state.found == [], do: scope, else: put_in(scope.late[id], Enum.reverse(state.found))

        {node, %{state | scopes: [scope | around], found: state.found ++ found}}
    end
  end

  defp owner(scopes, id) do
    scopes
    |> Enum.with_index()
    |> Enum.reduce(0, fn {scope, at}, owner ->
      if is_map_key(scope.ids, id), do: at, else: owner
    end)
  end

  defp lower(%T{data: %Expr{op: op, args: args}} = expr, state) do
    unless match?({:tuple, _}, expr.type), do: Dispatch.check_type!(expr.type, state.device)
    if state.fold? and op != :block, do: Function.check!(op, expr)
    {lowered, state} = lower(op, args, expr, state)
    {lowered, check(op, args, lowered, state)}
  end

  defp lower(:parameter, [at], expr, %{scopes: [%{params: nil} | _]} = state),
    do: {input({:input, at}, expr, state), state}

  defp lower(:parameter, [at], _expr, %{scopes: [%{params: params} | _]} = state),
    do: {elem(params, at), state}

  defp lower(:tensor, [tensor], expr, state) do
    case state.tensors do
      %{^tensor => node} ->
        {node, state}

      tensors ->
        node = input({:tensor, map_size(tensors)}, expr, state)
        {node, %{state | tensors: Map.put(tensors, tensor, node)}}
    end
  end

  defp lower(:elem, [tuple, at], _expr, state) do
    {nodes, state} = node(tuple, state)
    {elem(nodes, at), state}
  end

  defp lower(:cond, [clauses, last], expr, state) do
    {nodes, state} = branches(clauses, last, state)
    {like(expr, nodes), state}
  end

  defp lower(:while, [initial, _arg, condition, body], expr, state) do
    {nodes, state} = initial |> leaves() |> nodes(state)
    {nodes, state} = loop(nodes, initial, condition, body, state)
    {like(expr, nodes), state}
  end

  defp lower(:block, [struct, args, default, _fun], expr, state) do
    {tensors, options} = Enum.split_while(args, &is_struct(&1, T))
    {nodes, state} = nodes(tensors, state)
    out = if is_tuple(default), do: default, else: expr

    out = Downcast.out(out, state.device)

    # In a fold the block's own operations are checked.
    case not state.fold? && Lowering.lower_block(struct, out, nodes ++ options) do
      none when none in [nil, false] -> inline(default, nodes, state)
      lowered -> {lowered, state}
    end
  end

  defp lower(op, [x, initial | rest], expr, state) when op in [:reduce, :window_reduce] do
    {options, [fun]} = Enum.split(rest, -1)
    {[x, initial], state} = nodes([x, initial], state)
    {function, state} = fold(fun, expr.type, state)
    args = [Shape.cast(x, function.type), initial, function.captured, function | options]
    {lowered(op, expr, args, state), state}
  end

  defp lower(:io_call, [data, callback, _template, _ref], expr, state) do
    exprs = leaves(data)
    {nodes, state} = nodes(exprs, state)

    state =
      case callback(callback, state.hooks) do
        nil -> state
        fun when state.inside == [] -> step(state, {:call, bare(data), effect(fun)}, nodes, [])
        fun -> call_late(state, bare(data), effect(fun), nodes)
      end

    {like(expr, nodes), state}
  end

  # Its results are for all, so it is not called late, and nor is what it depends on.
  defp lower(:runtime_call, [data, fun, template, options], expr, %{inside: inside} = state) do
    {nodes, state} = data |> leaves() |> nodes(%{state | inside: []})
    {results, state} = template |> leaves() |> Enum.map_reduce(state, &value/2)
    call = {:call, bare(data), &answer(fun.(&1, options), bare(template))}
    {like(expr, results), step(%{state | inside: inside}, call, nodes, results)}
  end

  # Starts that are all numbers are moved inside now.
  defp lower(op, [x, starts | rest], expr, state) when op in [:slice, :put_slice] do
    numbers = Enum.map(starts, &number/1)
    starts = if Enum.all?(numbers, &is_integer/1), do: numbers, else: starts
    {args, state} = Enum.map_reduce([x, starts | rest], state, &argument/2)
    {lowered(op, expr, args, state), state}
  end

  # Element-wise kernels are slow on rows that lie in memory as columns. The product in
  # the other order may round differently, as fused kernels may.
  defp lower(:transpose, [x, [1, 0] = axes], expr, %{fuse: true} = state) do
    case node(x, state) do
      {%Graph{row: :matmul} = product, state} -> {Linalg.transpose(product), state}
      {node, state} -> {Lowering.lower(:transpose, expr, [node, axes]), state}
    end
  end

  defp lower(:bitcast, [x], expr, state) do
    {node, state} = node(x, state)
    {Narrow.bitcast(node, x.type, expr.type, Downcast.stored(expr.type, state.device)), state}
  end

  defp lower(op, args, expr, state) do
    if op not in Lowering.ops() do
      raise Mlx.Error,
        kind: :unsupported,
        op: Atom.to_string(op),
        message: "the expression #{op} can't be compiled"
    end

    {args, state} = Enum.map_reduce(args, state, &argument/2)
    {lowered(op, expr, args, state), state}
  end

  defp lowered(op, expr, args, state) do
    lowered = Lowering.lower(op, Downcast.out(expr, state.device), args)
    # Kernels that are compiled take numbers as they are, and so does what folds.
    if state.fuse or state.fold?, do: lowered, else: Elementwise.spread(lowered)
  end

  defp argument(%T{} = expr, state), do: node(expr, state)
  defp argument([_ | _] = list, state), do: Enum.map_reduce(list, state, &argument/2)
  defp argument(other, state), do: {other, state}

  defp number(%T{shape: {}, data: %Expr{op: :constant, args: [number]}}), do: number
  defp number(other), do: other

  # The default of a block, whose parameters are the block's operands.
  defp inline(default, params, %{scopes: around} = state) do
    exprs = leaves(default)
    inner = push(%{state | scopes: [], inside: []}, exprs, params)
    {nodes, inner} = nodes(exprs, inner)
    [%{steps: steps}] = inner.scopes
    [scope | rest] = around

    state = %{
      inner
      | inside: state.inside,
        scopes: [%{scope | steps: steps ++ scope.steps} | rest]
    }

    {like(default, nodes), state}
  end

  ## Checks

  @settings Debug.settings()

  # Steps that look at what is computed and raise.
  if @settings == [] do
    defp check(_op, _args, _lowered, state), do: state
  else
    @lowered Lowering.ops()

    # What folds is checked as a whole.
    defp check(_op, _args, _lowered, %{fold?: true} = state), do: state

    defp check(:block, [struct, args | _], lowered, state),
      do: checks(struct, args, lowered, state)

    defp check(op, args, lowered, state) when op in @lowered,
      do: checks(op, args, lowered, state)

    defp check(_op, _args, _lowered, state), do: state

    defp checks(op, args, lowered, state) do
      operands = for %T{} = expr <- List.flatten(args), not function?(expr), do: expr
      bare = Enum.map(operands, &bare/1)
      {args, state} = Enum.map_reduce(args, state, &operand/2)

      @settings
      |> Debug.checks(op, args, flatten(lowered))
      |> Enum.reduce(state, fn {nodes, tell}, state ->
        data = for node <- nodes, do: Nx.template(node.shape, node.type)
        step(state, {:call, List.to_tuple(data), &judge(&1, tell, op, bare)}, nodes, [])
      end)
    end

    defp operand(expr, state),
      do: if(function?(expr), do: {expr, state}, else: argument(expr, state))

    defp function?(expr), do: match?(%T{data: %Expr{op: :fun}}, expr)

    defp judge(values, tell, op, operands) do
      message = values |> Tuple.to_list() |> Enum.map(&Nx.to_binary/1) |> tell.()
      if message, do: raise(Debug.error(op, operands, message))
      []
    end
  end

  ## Branches

  defp branches([{predicate, body} | clauses], last, state) do
    {predicate, state} = node(predicate, state)
    {on_true, state} = branch(body, state)

    # Of the clauses that are tried next only the predicate is sure to be needed.
    {on_false, state} =
      case clauses do
        [] -> branch(last, state)
        [{next, _} | _] -> enter(state, [next], nil, &branches(clauses, last, &1))
      end

    captured = captured([on_true, on_false])

    if on_true.steps == [] and on_false.steps == [] do
      programs = for scope <- [on_true, on_false], do: Graph.program(scope.outputs, captured)
      signatures = Enum.map(on_true.outputs, &{&1.type, &1.shape})
      {Control.cond(predicate, programs, captured, signatures), state}
    else
      captured = Enum.reject(captured, &known?/1)
      scopes = for scope <- [on_true, on_false], do: %{scope | inputs: captured}
      {results, state} = Enum.map_reduce(on_true.outputs, state, &value/2)
      {results, step(state, {:cond, scopes}, [truth(predicate) | captured], results)}
    end
  end

  defp branch(expr, state) do
    exprs = leaves(expr)
    enter(state, exprs, nil, &nodes(exprs, &1))
  end

  ## Loops

  defp loop(state_nodes, initial, condition, body, state) do
    params = for node <- state_nodes, do: Graph.input(make_ref(), node.type, node.shape)
    {goes_on, state} = closed([condition], params, state)
    {next, state} = body |> leaves() |> closed(params, state)
    fixed = captured([goes_on, next])

    cond do
      goes_on.steps != [] or next.steps != [] ->
        # What a closed scope captures is known.
        goes_on = %{goes_on | outputs: Enum.map(goes_on.outputs, &truth/1)}
        scopes = for scope <- [goes_on, next], do: %{scope | inputs: params}
        {results, state} = Enum.map_reduce(state_nodes, state, &value/2)
        {results, step(state, {:while, scopes}, state_nodes, results)}

      counted = Loop.count(leaves(initial), condition, leaves(body)) ->
        {Loop.repeat(counted, state_nodes, params, next), state}

      true ->
        programs = for scope <- [goes_on, next], do: Graph.program(scope.outputs, params ++ fixed)
        {Control.while(state_nodes, programs, fixed), state}
    end
  end

  # A predicate as a byte that is 0 or 1.
  defp truth(%Graph{type: type} = node) do
    Lowering.lower(:not_equal, %{type: {:u, 8}, shape: {}}, [node, Creation.full(0, type)])
  end

  # What scopes that run with the same operands take from outside.
  defp captured(scopes) do
    scopes |> Enum.flat_map(& &1.inputs) |> Enum.uniq_by(&Graph.key/1)
  end

  defp closed(exprs, params, state) do
    enter_closed(state, exprs, params, &nodes(exprs, &1))
  end

  # The function of a reduction as one that runs on whole slices.
  defp fold(%T{data: %Expr{op: :fun, args: [_args, expr, _mfa]}}, type, state) do
    stored = Downcast.stored(type, state.device)
    params = for at <- 0..1, do: Graph.input({:element, at}, stored, {})
    {scope, inner} = closed([expr], params, %{state | fold?: true})
    program = Graph.program(scope.outputs, params ++ scope.inputs)
    function = %Function{program: program, captured: scope.inputs, type: stored}
    {function, %{inner | fold?: state.fold?}}
  end

  ## Steps

  defp step(%{scopes: [scope | around]} = state, action, operands, results) do
    step = %Step{action: action, operands: operands, results: results}
    %{state | scopes: [%{scope | steps: [step | scope.steps]} | around]}
  end

  # A call that the scopes inside this one make. Who is the first at run time a token
  # of this scope tells.
  defp call_late(state, data, fun, nodes) do
    token = Graph.input(make_ref(), {:u, 8}, {})
    state = step(state, :token, [], [token])
    call(state, {token, {:once, data, fun}, nodes})
  end

  # Unless a scope has made it that the present one is inside of.
  defp call(%{inside: inside, scopes: scopes} = state, {token, action, nodes} = call) do
    state = %{state | found: [call | state.found]}

    if Enum.any?(inside ++ scopes, &is_map_key(&1.called, token.id)) do
      state
    else
      [scope | around] = inside ++ scopes
      step = %Step{action: action, operands: [token | nodes], results: []}
      called = Map.put(scope.called, token.id, true)
      all = [%{scope | steps: [step | scope.steps], called: called} | around]
      {inside, scopes} = Enum.split(all, length(inside))
      %{state | inside: inside, scopes: scopes}
    end
  end

  # What a step gives, of which only type and shape are known.
  defp value(%T{} = template, state), do: value(input(nil, template, state), state)

  defp value(%Graph{type: type, shape: shape}, %{values: count} = state) do
    {Graph.input({:value, count}, type, shape), %{state | values: count + 1}}
  end

  # A step outlives the expressions. As terms, what they share would be copied each time
  # that they share it.
  defp bare(data), do: Composite.traverse(data, &Nx.to_template/1)

  defp callback({:fn, fun}, _hooks), do: fun
  defp callback({:named, name, fun}, hooks), do: hooks[name] || fun

  defp effect(fun) do
    fn value ->
      fun.(value)
      []
    end
  end

  defp answer(result, template) do
    unless Nx.compatible?(template, result) do
      raise "expected the runtime_call function to match the given output template"
    end

    leaves(result)
  end

  ## Shapes of results

  defp input(id, %T{} = tensor, %{device: device}), do: Dispatch.input(tensor, id, device)

  # An expression of several tensors has a tuple of nodes.
  defp like(%T{type: {:tuple, _}}, nodes), do: List.to_tuple(nodes)
  defp like(exprs, nodes) when is_tuple(exprs), do: List.to_tuple(nodes)
  defp like(_expr, [node]), do: node

  defp leaves(composite), do: Composite.flatten_list([composite])

  defp flatten(nodes) when is_list(nodes), do: Enum.flat_map(nodes, &flatten/1)
  defp flatten(nodes) when is_tuple(nodes), do: nodes |> Tuple.to_list() |> flatten()
  defp flatten(node), do: [node]
end
