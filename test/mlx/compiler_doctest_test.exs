defmodule Mlx.CompilerDoctestTest do
  @moduledoc """
  The examples in Nx's documentation once more, with each step that gives tensors run as
  a compiled function. What the step is given is its arguments: the variables that hold
  tensors, and tensors that it writes down.
  """

  use ExUnit.Case, async: true
  alias Mlx.{DocDifferences, DocExamples, Oracle}
  alias Nx.Tensor, as: T

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # How many steps run compiled at least, with arguments and without any. Those of the
  # others that give tensors do what no definition can, and all compilers refuse them.
  @counts %{
    Nx => {903, 484},
    Nx.Batch => {4, 0},
    Nx.Constants => {0, 51},
    Nx.Defn => {2, 0},
    Nx.Defn.Kernel => {3, 3},
    Nx.LinAlg => {110, 39},
    Nx.Random => {32, 36}
  }

  # The examples of one need modules and processes, those of the other take expressions
  # apart.
  @apart [Nx.Serving, Nx.Defn.Graph]

  # One is seeded with the time, one compares references, and two ask for a mark that
  # results don't have.
  @other [{Nx.Random, :moduledoc, 2}, {Nx, {:vectorize, 2}, 2}] ++
           [{Nx, {:donatable, 1}, 1}, {Nx, {:donatable, 1}, 2}]

  @backends [Mlx.Backend, Nx.BinaryBackend, Nx.TemplateBackend]

  for module <- DocExamples.modules() -- @apart do
    test inspect(module) do
      tally = :counters.new(2, [])

      failures =
        for %{module: module, function: function, number: number} = example <-
              DocExamples.examples(unquote(module)),
            {module, function, number} not in @other,
            failure = failure(example, tally),
            do: failure

      if failures != [], do: flunk(Enum.join(failures, "\n"))
      {with_arguments, without} = unquote(Macro.escape(@counts[module] || {0, 0}))
      refused = refused_steps(unquote(module))
      assert :counters.get(tally, 1) >= with_arguments - refused
      assert :counters.get(tally, 2) >= without - refused
    end
  end

  defp refused_steps(module) do
    for(
      example <- DocExamples.examples(module),
      DocDifferences.options(example)[:refused],
      do: length(example.steps)
    )
    |> Enum.sum()
  end

  defp failure(example, tally) do
    # Some set these.
    Nx.Defn.default_options([])
    options = [run: &run(&1, &2, imports(example), tally), backends: @backends]
    DocExamples.check(example, options ++ DocDifferences.options(example))
    nil
  rescue
    error -> "#{inspect(Map.delete(example, :steps))}\n#{Exception.message(error)}"
  end

  # What the examples of a module take for granted.
  defp imports(%{module: Nx.Defn.Kernel}), do: quote(do: use(Nx.Defn.Kernel))
  defp imports(_example), do: quote(do: import(Nx, only: :sigils))

  defp run(variables, code, imports, tally) do
    code = code |> Code.string_to_quoted!() |> Macro.prewalk(&nest/1)
    {value, after_it} = evaluate(variables, code, imports)

    with {pattern, code} = split_match(code),
         true <- tensors?(value) and not variable?(code),
         {:ok, same} <- compiled(variables, code, imports, tally) do
      same = if is_list(value), do: Tuple.to_list(same), else: same
      {same, bind(pattern, same, after_it)}
    else
      _ -> {value, after_it}
    end
  end

  defp nest({:|>, _, [left, right]}), do: Macro.pipe(left, right, 0)
  defp nest(code), do: code

  defp split_match({:=, _, [pattern, code]}), do: {pattern, code}
  defp split_match(code), do: {nil, code}

  defp bind(nil, _value, variables), do: variables

  defp bind(pattern, value, variables) do
    match = {:=, [], [pattern, Macro.var(:matched, nil)]}
    {_, variables} = Code.eval_quoted(match, Keyword.put(variables, :matched, value))
    Keyword.delete(variables, :matched)
  end

  defp compiled(variables, code, imports, tally) do
    {open, arguments} = arguments(variables, code, imports)
    opened = if arguments == [] or variable?(open), do: [], else: [{1, open, arguments}]

    Enum.find_value(opened ++ [{2, code, []}], :refused, fn {at, code, arguments} ->
      fun = fn arguments ->
        {value, _} = variables |> Keyword.merge(Map.to_list(arguments)) |> evaluate(code, imports)
        if is_list(value), do: List.to_tuple(value), else: value
      end

      with {:ok, value} <- jit(fun, Map.new(arguments)) do
        :counters.add(tally, at, 1)
        {:ok, value}
      end
    end)
  end

  # Both compilers give the same, bit for bit, or refuse the same.
  defp jit(fun, arguments) do
    expected = jit(fun, arguments, compiler: Nx.Defn.Evaluator)
    got = jit(fun, arguments, compiler: Mlx.Compiler, cache: false)

    with {{:ok, value}, {:ok, expected}} <- {got, expected} do
      Oracle.assert_identical(value, expected)
      {:ok, value}
    else
      _ ->
        assert got == expected
        nil
    end
  end

  defp jit(fun, arguments, options) do
    {:ok, Nx.Defn.jit_apply(fun, [arguments], options)}
  rescue
    error ->
      {:error, error.__struct__, Regex.replace(~r/#\w+<[\d.]+>/, Exception.message(error), "")}
  end

  defp evaluate(variables, code, imports) do
    # Some functions are deprecated.
    {result, _warnings} =
      Code.with_diagnostics(fn ->
        Code.eval_quoted({:__block__, [], [imports, code]}, variables)
      end)

    result
  end

  ## Arguments

  # The code with variables in the place of tensors it writes down, and the tensors.
  defp arguments(variables, code, imports) do
    {code, made} = take(code, variables, imports, [])
    held = for {name, value} <- variables, tensors?(value), uses?(code, name), do: {name, value}
    {code, held ++ made}
  end

  defp take({:fn, _, _} = code, _variables, _module, made), do: {code, made}
  defp take({:&, _, _} = code, _variables, _module, made), do: {code, made}

  defp take(
         {{:., _, [{:__aliases__, _, [:Nx]}, name]}, _, [_ | _]} = code,
         variables,
         imports,
         made
       )
       when name in [:tensor, :iota, :s32, :u8, :f32] do
    {value, _} = evaluate(variables, code, imports)
    name = :"argument#{length(made)}"
    {Macro.var(name, nil), [{name, value} | made]}
  end

  defp take({name, meta, arguments}, variables, imports, made) when is_list(arguments) do
    {arguments, made} = Enum.map_reduce(arguments, made, &take(&1, variables, imports, &2))
    {{name, meta, arguments}, made}
  end

  defp take({left, right}, variables, imports, made) do
    {[left, right], made} = take([left, right], variables, imports, made)
    {{left, right}, made}
  end

  defp take(list, variables, imports, made) when is_list(list) do
    Enum.map_reduce(list, made, &take(&1, variables, imports, &2))
  end

  defp take(code, _variables, _module, made), do: {code, made}

  defp variable?(code), do: match?({_name, _, context} when is_atom(context), code)

  defp uses?(code, name) do
    {_, uses} = Macro.prewalk(code, false, &{&1, &2 or match?({^name, _, nil}, &1)})
    uses
  end

  defp tensors?(%T{data: data}), do: is_struct(data, Mlx.Backend)
  defp tensors?(list) when is_list(list), do: list != [] and Enum.all?(list, &tensors?/1)

  defp tensors?(value) when is_tuple(value) or is_map(value) do
    leaves = Nx.Defn.Composite.flatten_list([value])
    leaves != [] and Enum.all?(leaves, &(is_struct(&1, T) and tensors?(&1)))
  rescue
    # Of something else.
    Protocol.UndefinedError -> false
  end

  defp tensors?(_value), do: false
end
