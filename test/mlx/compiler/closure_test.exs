defmodule Mlx.Compiler.ClosureTest do
  use ExUnit.Case, async: true
  alias Mlx.Compiler.Closure

  # Each time another term.
  defp capturing(term), do: fn x -> {x, term} end

  defp much(last), do: Enum.to_list(1..1000) ++ [last]

  defp elsewhere(fun), do: fun |> Task.async() |> Task.await(:infinity)

  test "functions that captured little are known by themselves" do
    fun = capturing(1)
    assert Closure.key(fun) == fun
    assert Closure.key(&Nx.add/2) == (&Nx.add/2)
  end

  test "functions that captured much have a name, which equal ones share in all processes" do
    fun = capturing(much(1))
    name = Closure.key(fun)
    assert is_reference(name)
    assert Closure.key(fun) == name
    assert Closure.key(capturing(much(1))) == name
    assert elsewhere(fn -> Closure.key(capturing(much(1))) end) == name
  end

  test "others have other names" do
    names = for last <- [1, 2, 3, 1.0, self()], do: Closure.key(capturing(much(last)))
    assert names == Enum.uniq(names)
    assert Closure.key(fn -> much(1) end) not in names
    all = much(1)
    assert Closure.key(fn -> all end) not in names
  end

  test "templates have no numbers to remember" do
    templates = {much(1), Nx.template({2}, :f32)}
    assert is_reference(Closure.key(capturing(templates)))
  end

  test "processes remember no tensors" do
    for captured <- [much(Nx.tensor(1)), {much(1), capturing(%{a: Nx.tensor(1)})}] do
      fun = capturing(captured)

      elsewhere(fn ->
        before = Process.get()
        key = Closure.key(fun)
        assert key == Closure.key(capturing(captured))
        refute is_reference(key)
        assert Process.get() == before
      end)
    end
  end

  # As a term, what expressions share is there once for each way to it.
  test "expressions that are captured are not gone through" do
    Nx.Defn.jit_apply(
      fn x ->
        deep = Enum.reduce(1..60, x, fn _, y -> Nx.add(y, y) end)
        assert Closure.key(capturing(deep)) == Closure.key(capturing(deep))
        assert Closure.key(capturing(deep)) != Closure.key(capturing(Nx.add(deep, deep)))
        x
      end,
      [1],
      compiler: Nx.Defn.Evaluator
    )
  end
end
